"""Two pictures and what differs between them."""

import copy

from . import answers as say
from . import shapes
from .palette import COLOURS, SHAPES, ZH_AREA, ZH_COLOUR, ZH_SHAPE, distance, shade
from .questions import wording
from .scenes import Thing, area, invent, place


def _unique(scene, thing):
    return sum((t.colour, t.shape) == (thing.colour, thing.shape) for t in scene.things) == 1


def _fresh(rng, scene, colour=None, shape=None):
    """A colour and shape whose combination the scene lacks, visible on its background."""
    have = {(t.colour, t.shape) for t in scene.things}
    for _ in range(50):
        c, s = colour or rng.choice(COLOURS), shape or rng.choice(SHAPES)
        if c == scene.background or (c, s) in have:
            continue
        rgb = next((t.rgb for t in scene.things if t.colour == c), None) or shade(rng, c)
        if distance(rgb, scene.ground["rgb"]) > 75 + scene.ground["amount"]:
            return c, s, rgb
    return None


def _radius(thing):
    x1, y1, x2, y2 = thing.box
    return max(x2 - x1, y2 - y1) / 2


def change(rng, first, how):
    """(second scene, {language: sentence}) or None."""
    second = copy.deepcopy(first)
    if how == "same":
        return second, {"en": "The two pictures are the same.", "zh": "两张图片相同。"}
    if how == "number":
        text = "".join(rng.choice("0123456789") for _ in first.number.text)
        if text == first.number.text:
            return None
        second.number.text = text
        return second, {
            "en": f"The first picture shows the number {first.number.text}, the second one shows the number {text}.",
            "zh": f"第一张图片中的数字是{first.number.text}，第二张图片中的数字是{text}。",
        }
    singles = [i for i, t in enumerate(first.things) if _unique(first, t)]
    if how != "more" and not singles:
        return None
    i = rng.choice(singles) if singles else 0
    if how == "more":
        new = _fresh(rng, first)
        if new is None or len(first.things) > 5:
            return None
        colour, shape, rgb = new
        small = (first.width * first.height) ** 0.5
        radius = rng.uniform(0.11, 0.17) * small
        points = place(rng, second, shape, radius, [t.box for t in second.things])
        if points is None:
            return None
        hollow = first.things[0].hollow if first.things else 0.0
        second.things.append(Thing(shape, colour, rgb, points, hollow))
        n_en, n_zh = say.article(f"{colour} {shape}"), say.name(colour, shape, "zh")
        return second, {"en": f"The second picture also has {n_en}.", "zh": f"第二张图片多了一个{n_zh}。"}
    thing = second.things[i]
    old_en, old_zh = (say.name(thing.colour, thing.shape, k) for k in ("en", "zh"))
    if how == "fewer":
        if len(first.things) < 2:
            return None
        del second.things[i]
        return second, {"en": f"The {old_en} is missing in the second picture.", "zh": f"第二张图片少了{old_zh}。"}
    others = [t.box for j, t in enumerate(second.things) if j != i]
    if how == "moved":
        start = area(first, thing)
        x1, y1, x2, y2 = thing.box
        for _ in range(30):
            dx = rng.uniform(2, first.width - 2 - (x2 - x1)) - x1
            dy = rng.uniform(2, first.height - 2 - (y2 - y1)) - y1
            thing.points = [(x + dx, y + dy) for x, y in first.things[i].points]
            end = area(second, thing)
            free = all(
                thing.box[2] < b[0] or b[2] < thing.box[0] or thing.box[3] < b[1] or b[3] < thing.box[1] for b in others
            )
            if start and end and end != start and free:
                return second, {
                    "en": f"The {old_en} moved from {say.TO_EN[start]} to {say.TO_EN[end]}.",
                    "zh": f"{old_zh}从{ZH_AREA[start]}移到了{ZH_AREA[end]}。",
                }
        return None
    if how == "colour":
        new = _fresh(rng, first, shape=thing.shape)
        if new is None or new[0] == thing.colour:
            return None
        thing.colour, thing.rgb = new[0], new[2]
        return second, {
            "en": f"The {old_en} became {thing.colour}.",
            "zh": f"{old_zh}变成了{ZH_COLOUR[thing.colour]}。",
        }
    if how == "shape":
        new = _fresh(rng, first, colour=thing.colour)
        if new is None or new[1] == thing.shape:
            return None
        cx, cy = thing.centre
        points = shapes.outline(rng, new[1], _radius(thing))
        x1, y1, x2, y2 = shapes.box(points)
        mx, my = cx - (x1 + x2) / 2, cy - (y1 + y2) / 2
        thing.points = [(x + mx, y + my) for x, y in points]
        thing.shape = new[1]
        return second, {
            "en": f"The {old_en} became {say.article(thing.shape)}.",
            "zh": f"{old_zh}变成了{ZH_SHAPE[thing.shape]}。",
        }
    raise ValueError(how)


CHANGES = ["same", "number", "moved", "colour", "shape", "more", "fewer", "other"]
WEIGHTS = [1.3, 1.5, 1.6, 1.2, 1.2, 1.2, 1.2, 2.2]  # in the test
TRAINED = [1.6, 3.0, 1.6, 1.8, 1.8, 1.2, 1.2, 2.0]  # what is harder is shown more often


def other_sentence(a, b):
    return {
        "en": f"The first picture shows {say.contents(a, 'en')}, the second one shows {say.contents(b, 'en')}.",
        "zh": f"第一张图片中有{say.contents(a, 'zh')}，第二张图片中有{say.contents(b, 'zh')}。",
    }


def make_pair(rng, size_a, size_b, held_out=False, how=None):
    """(first, second, sentences, how). Only unrelated pictures may differ in size."""
    while True:
        kind = how or rng.choices(CHANGES, WEIGHTS if held_out else TRAINED)[0]
        content = "number" if kind == "number" or (kind in ("same", "other") and rng.random() < 0.25) else "shapes"
        first = invent(rng, *size_a, content, held_out)
        if len(first.things) > 4 or not (first.things or first.number):
            continue
        if kind == "other":
            second = invent(rng, *size_b, rng.choice(["shapes", content]), held_out)
            if not (second.things or second.number) or len(second.things) > 2:
                continue
            if len(first.things) > 2 or say.contents(first, "en") == say.contents(second, "en"):
                continue
            if _one_step(first, second):
                continue
            return first, second, other_sentence(first, second), kind
        if size_a != size_b:
            if how:
                size_b = size_a
            continue
        result = change(rng, first, kind)
        if result is None:
            continue
        second, sentences = result
        if rng.random() < 0.5:
            second.style = {**second.style, "jpeg": rng.choice([0, second.style["jpeg"]])}
        return first, second, sentences, kind


def _one_step(a, b):
    """Unrelated scenes that differ like a change would: their sentence would be ambiguous."""
    if a.number or b.number:
        return bool(a.number and b.number and not a.things and not b.things)
    x = {(t.colour, t.shape) for t in a.things}
    y = {(t.colour, t.shape) for t in b.things}
    if not (x - y) or not (y - x):
        return True
    if len(a.things) == len(b.things) == 1:
        (c1, s1), (c2, s2) = next(iter(x)), next(iter(y))
        return c1 == c2 or s1 == s2
    return bool(x & y)


def ask_pair(rng, first, second, sentences, how, task, lang, held=None):
    text = wording(rng, lang, task, held)
    if task == "difference":
        return text, sentences[lang]
    if task == "same":
        if how == "same":
            yes = {"en": "Yes, the two pictures are the same.", "zh": "是的，两张图片相同。"}
            return text, yes[lang]
        no = {"en": "No, the two pictures are different.", "zh": "不，两张图片不同。"}
        return text, no[lang]
    return text, say.what(first if task == "what_first" else second, lang)
