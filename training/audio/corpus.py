"""Text for training the tokenizer: what users ask and tiny-audio answers, without any sound."""

from . import questions
from .hear import SHARES
from .imagine import imagine


def texts(rng, count):
    for i in range(count):
        lang = ("en", "zh")[i % 2]
        if rng.random() < 0.15:
            yield from questions.something_else(rng, lang)
            continue
        clip = imagine(rng, rng.choice(list(SHARES)))
        yield from questions.ask(rng, clip, rng.choice(questions.TASKS), lang)
        if rng.random() < 0.05:
            yield questions.orphan(rng, lang)[1]
    yield from ["user\n", "assistant\n", "system\n"] * 500
