"""Text for training the tokenizer: what users ask and tiny-vl answers, without any pictures."""

from . import pairs, questions, something_else
from .scenes import invent


def texts(rng, count):
    for i in range(count):
        lang = ("en", "zh")[i % 2]
        roll = rng.random()
        if roll < 0.15:
            yield from something_else.ask(rng, lang, with_picture=rng.random() < 0.3)
            continue
        if roll < 0.2:
            yield rng.choice(list(something_else.ANSWER.values()))[lang]
        if roll < 0.27:
            a, b, sentences, how = pairs.make_pair(rng, (256, 256), (256, 256))
            task = rng.choice(["difference", "same", "what_first", "what_second"])
            yield from pairs.ask_pair(rng, a, b, sentences, how, task, lang)
            continue
        kind = rng.choice(["shapes", "count", "number", "mixed"])
        scene = invent(rng, 256, 256, kind)
        task = rng.choice([t for t, g in questions.GROUP.items() if g not in ("difference", "two pictures", "video")])
        found = questions.ask(rng, scene, task, lang)
        if found:
            yield from found
    yield from ["user\n", "assistant\n", "system\n"] * 50
