"""Questions for the test: fonts, sizes, backgrounds, JPEG qualities and wordings not trained on."""

import base64
import io
import random
from dataclasses import dataclass, field

from . import fonts, motion, pairs, questions, something_else
from .draw import render
from .scenes import invent
from .sequences import size

KINDS = [
    "what",
    "count",
    "where",
    "relation",
    "digits",
    "digits by hand",
    "difference",
    "two pictures",
    "box",
    "yes/no",
    "attribute",
    "background",
    "something else",
    "no picture",
    "conversation",
    "video",
]
SCENES = {
    "what": ["shapes", "shapes", "count", "mixed", "number"],
    "count": ["count", "shapes"],
    "digits": ["number", "number", "number", "mixed"],
    "digits by hand": ["number"],
    "yes/no": ["shapes", "count"],
    "background": ["shapes", "number"],
}


@dataclass
class Item:
    kind: str
    lang: str
    messages: list  # content parts: {"type": "text", "text": ...} or {"type": "image", "image": PIL}
    answer: str
    new_wording: bool
    box: bool = False
    images: list = field(default_factory=list)


def _user(rng, images, text):
    parts = [{"type": "image", "image": im} for im in images]
    words = {"type": "text", "text": text}
    return {"role": "user", "content": [words, *parts] if rng.random() < 0.3 else [*parts, words]}


def by_hand(number) -> bool:
    """Drawn stroke by stroke, or in a font that looks like handwriting."""
    return number.font is None or number.font in fonts.HANDWRITING


def _film(rng, lang, new) -> tuple[bytes, tuple[str, str]]:
    """A real video file, and a question about it."""
    width, height = (min(v, 400) // 2 * 2 for v in size(rng, True))
    rate = rng.choice([5, 8, 10])
    made = motion.film(rng, width, height, True, frames=round(rate * rng.uniform(1, 4)))
    while True:
        found = motion.ask(rng, made, rng.choice(list(motion.TASKS)), lang, new)
        if found:
            return video_file([render(frame) for frame in made.frames], rate), found


def video_file(frames, rate: int) -> bytes:
    """H.264 in MP4, as cameras and screen recorders make it."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return file.getvalue()


def _single(rng, kind, lang, new):
    tasks = [t for t, g in questions.GROUP.items() if g == kind.removesuffix(" by hand")]
    while True:
        scene = invent(rng, *size(rng, True), rng.choice(SCENES.get(kind, ["shapes"])), True)
        if not scene.things and not scene.number:
            continue
        found = questions.ask(rng, scene, rng.choice(tasks), lang, new)
        if kind.startswith("digits") and not (scene.number and by_hand(scene.number) == (kind != "digits")):
            continue
        if found and (kind != "box" or found[1].startswith("[")):
            return scene, found


def make(kind: str, index: int) -> Item:
    rng = random.Random(f"held-out {kind} {index}")
    lang = ("en", "zh")[index % 2]
    new = rng.random() < 0.3
    if kind == "something else":
        question, answer = something_else.ask(rng, lang, new)
        images = []
        if rng.random() < 0.3:
            images = [render(invent(rng, *size(rng, True), "shapes", True))]
        return Item(kind, lang, [_user(rng, images, question)], answer, new)
    if kind == "no picture":
        group = rng.choice(["what", "count", "where", "digits", "box", "attribute", "difference"])
        if group == "difference":
            question = questions.wording(rng, lang, "difference", new)
        else:
            question = _single(rng, group, lang, new)[1][0]
        answer = something_else.ANSWER["no_picture"][lang]
        return Item(kind, lang, [_user(rng, [], question)], answer, new)
    if kind == "video":
        file, (question, answer) = _film(rng, lang, new)
        url = "data:video/mp4;base64," + base64.b64encode(file).decode()
        parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
        parts = parts[::-1] if rng.random() < 0.3 else parts
        return Item(kind, lang, [{"role": "user", "content": parts}], answer, new)
    if kind in ("difference", "two pictures"):
        wh = size(rng, True)
        other = size(rng, True) if rng.random() < 0.1 else wh
        a, b, sentences, how = pairs.make_pair(rng, wh, other, True)
        tasks = ["what_first", "what_second"]
        if kind == "difference":
            tasks = ["difference", "difference", "difference", "same"]
        question, answer = pairs.ask_pair(rng, a, b, sentences, how, rng.choice(tasks), lang, new)
        return Item(kind, lang, [_user(rng, [render(a), render(b)], question)], answer, new)
    if kind == "conversation":
        messages, scene = [], None
        turns = rng.randint(2, 4)
        while True:
            if scene is None or rng.random() < 0.35:
                scene = invent(rng, *size(rng, True), rng.choice(["shapes", "number"]), True)
                images = [render(scene)]
                tasks = (
                    ["what", "count", "digits"]
                    if scene.number
                    else ["what", "count", "where", "relation", "colour_of", "shape_of", "is_there"]
                )
            found = questions.ask(rng, scene, rng.choice(tasks), lang, new)
            if not found or not (scene.things or scene.number):
                continue
            messages.append(_user(rng, images, found[0]))
            images = []
            if len(messages) // 2 + 1 == turns:
                return Item(kind, lang, messages, found[1], new)
            messages.append({"role": "assistant", "content": found[1]})
    scene, (question, answer) = _single(rng, kind, lang, new)
    return Item(kind, lang, [_user(rng, [render(scene)], question)], answer, new, kind == "box")
