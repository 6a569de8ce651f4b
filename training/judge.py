"""Decides whether an answer is right."""

import json
import re


def normal(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().lower().rstrip(".。!！")).replace("grey", "gray")


def parts(text: str):
    """The listed things of a sentence as a sorted tuple: their order does not matter."""
    return tuple(sorted(p for p in re.split(r", | and |、|和|，", normal(text)) if p))


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
    if item.kind == "what" or item.answer.startswith(("The video shows", "视频中有")):
        return parts(answer) == parts(item.answer), None
    return normal(answer) == normal(item.answer), None
