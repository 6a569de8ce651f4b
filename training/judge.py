"""Decides whether an answer is right."""

import json
import re

from .answers import PLURAL
from .palette import COLOURS, SHAPES, ZH_COLOUR, ZH_SHAPE

_ZH_COLOURS, _ZH_SHAPES = [ZH_COLOUR[c] for c in COLOURS], [ZH_SHAPE[s] for s in SHAPES]
_PLURALS = {PLURAL.get(shape, shape + "s"): shape for shape in SHAPES}
_THING = {
    "en": rf"(?:(an?|\d+) ({'|'.join(COLOURS)}) ({'|'.join([*SHAPES, *_PLURALS])})|the number (\d+))(?!\w)",
    "zh": rf"(?:(一|\d+)个({'|'.join(_ZH_COLOURS)})的({'|'.join(_ZH_SHAPES)})|数字(\d+))",
}
_COLOUR = {"en": rf"(?:{'|'.join(COLOURS)})(?!\w)", "zh": rf"(?:{'|'.join(_ZH_COLOURS)})"}
_BETWEEN = {"en": "(?:, | and )", "zh": "[、，和]"}
_LISTS = {
    lang: [re.compile(f"{one}(?:{_BETWEEN[lang]}{one})*") for one in (_THING[lang], _COLOUR[lang])]
    for lang in ("en", "zh")
}


def normal(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().lower().rstrip(".。!！")).replace("grey", "gray")


def things(listed: str, lang: str) -> list[str]:
    """Every thing of a list by itself, in one order: "2 red circles" is a red circle and a red circle."""
    found = []
    for many, colour, shape, number in re.findall(_THING[lang], listed):
        if number:
            found.append(f"#{number}")
        else:
            found += [f"{colour} {_PLURALS.get(shape, shape)}"] * (int(many) if many.isdigit() else 1)
    return sorted(found)


def meaning(text: str) -> str:
    """The answer with each of its lists in one order, and equal things one by one."""
    lang = "en" if text.isascii() else "zh"
    of_things, of_colours = _LISTS[lang]
    text = of_things.sub(lambda m: f"<{'; '.join(things(m[0], lang))}>", normal(text))
    if text.startswith(("the color", "颜色有")):
        text = of_colours.sub(lambda m: f"<{'; '.join(sorted(re.findall(_COLOUR[lang], m[0])))}>", text)
    return text


def read_box(text: str):
    try:
        found = json.loads(text)[0]
        return [float(v) for v in found["bbox_2d"]], found["label"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None, None


def iou(a, b) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0.0, w) * max(0.0, h)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inside / max(area - inside, 1e-9)


def right(item, answer: str) -> tuple[bool, float | None]:
    """(right?, IoU for boxes)"""
    if item.box:
        want, _ = read_box(item.answer)
        got, _ = read_box(answer)
        value = iou(want, got) if got and len(got) == 4 else 0.0
        return value >= 0.5, value
    return meaning(answer) == meaning(item.answer), None
