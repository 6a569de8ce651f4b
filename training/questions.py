"""Asks about one picture: yields (kind, language, question, answer) with one right answer each."""

import random
import re
from collections import Counter

from . import answers as say
from . import dense, phrasing
from . import wordings_en as en
from . import wordings_zh as zh
from .palette import ALIAS_COLOUR, ALIAS_SHAPE, ALIAS_ZH_COLOUR, ALIAS_ZH_SHAPE, COLOURS, SHAPES, ZH_COLOUR, ZH_SHAPE
from .scenes import area

# How the single tasks are grouped in the accuracy table.
GROUP = {
    "what": "what",
    "describe": "what",
    "colours": "what",
    "count": "count",
    "where": "where",
    "relation": "relation",
    "is_relation": "relation",
    "digits": "digits",
    "box": "box",
    "is_there": "yes/no",
    "colour_of": "attribute",
    "shape_of": "attribute",
    "background": "background",
    "difference": "difference",
    "same": "difference",
    "what_first": "two pictures",
    "what_second": "two pictures",
    "moves": "video",
    "turns": "video",
    "happens": "video",
    "shown": "video",
}


def wording(rng, lang, task, held_out=None, **slots):
    """Fills in one wording and varies politeness, case and punctuation.

    held_out: None for training; in the test, whether it is a wording that was not trained on.
    """
    module = en if lang == "en" else zh
    if held_out is None:
        text = phrasing.train(rng, lang, task)
    else:
        text = rng.choice((module.HELD_OUT if held_out else module.TRAIN)[task])
    slots["p"] = slots.get("v") or rng.choice(module.PICTURE)
    text = text.format(**slots)
    if lang == "en":
        if rng.random() < 0.4:
            text = swap_spelling(rng, text)
        if rng.random() < 0.18:
            before = rng.choice(en.BEFORE).format(p=slots["p"])
            text = before + (text if before[-2] in ".!:" else text[0].lower() + text[1:])
        if rng.random() < 0.12:
            text += rng.choice(en.AFTER)
        roll = rng.random()
        if roll < 0.2:
            text = text.lower()
        elif roll < 0.22:
            text = text.upper()
        if rng.random() < 0.2:
            text = text.rstrip("?.!")
    else:
        if rng.random() < 0.22:
            text = rng.choice(zh.BEFORE) + text
        if rng.random() < 0.12:
            text += rng.choice(zh.AFTER)
        if rng.random() < 0.25:
            text = text.rstrip("？。")
        if rng.random() < 0.12:
            text = text.replace("？", "?").replace("，", ",")
    return text


def swap_spelling(rng, text):
    if rng.random() < 0.5:
        return re.sub(r"([Cc])olor", r"\1olour", text).replace("gray", "grey")
    return re.sub(r"([Cc])olour", r"\1olor", text).replace("grey", "gray")


def said(rng, colour, shape, lang):
    """How a question names something: mostly the plain names, sometimes other words."""
    if lang == "en":
        c = rng.choice(ALIAS_COLOUR[colour]) if colour in ALIAS_COLOUR and rng.random() < 0.15 else colour
        s = rng.choice(ALIAS_SHAPE[shape]) if shape in ALIAS_SHAPE and rng.random() < 0.15 else shape
        return c, s
    c = (
        rng.choice(ALIAS_ZH_COLOUR[colour])
        if colour in ALIAS_ZH_COLOUR and rng.random() < 0.3
        else (ZH_COLOUR[colour] if colour else None)
    )
    s = (
        rng.choice(ALIAS_ZH_SHAPE[shape])
        if shape in ALIAS_ZH_SHAPE and rng.random() < 0.35
        else (ZH_SHAPE[shape] if shape else None)
    )
    return c, s


def bare(rng, colour, shape, lang):
    c, s = said(rng, colour, shape, lang)
    if lang == "en":
        s = s or rng.choice(["shape", "object", "thing"])
        return f"{c} {s}" if c else s
    s = s or rng.choice(["图形", "形状", "物体", "东西"])
    if not c:
        return s
    return c + ("" if rng.random() < 0.35 else "的") + s


def the(rng, scene, thing, lang):
    """A reference that fits exactly this thing, or None."""
    full = [t for t in scene.things if (t.colour, t.shape) == (thing.colour, thing.shape)]
    if len(full) != 1:
        return None
    colour, shape = thing.colour, thing.shape
    if rng.random() < 0.3:
        if sum(t.shape == shape for t in scene.things) == 1 and rng.random() < 0.6:
            colour = None
        elif sum(t.colour == colour for t in scene.things) == 1:
            shape = None
    text = bare(rng, colour, shape, lang)
    return ("the " if rng.random() < 0.96 else "") + text if lang == "en" else text


def direction(a, b):
    """Where a is, seen from b; None if it cannot be told clearly."""
    dx, dy = a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]
    ax, ay = abs(dx), abs(dy)
    if ax > 2.6 * ay:
        return "left" if dx < 0 else "right"
    if ay > 2.6 * ax:
        return "above" if dy < 0 else "below"
    if 0.6 < ax / (ay + 1e-6) < 1.67:
        return ("upper " if dy < 0 else "lower ") + ("left" if dx < 0 else "right")
    return None


def noun_plural(text, lang):
    if lang == "zh":
        return text
    words = text.split(" ")
    words[-1] = {"plus": "plus signs", "cross": "crosses"}.get(words[-1], words[-1] + "s")
    return " ".join(words)


def random_pair(rng, scene):
    """A colour and shape not in the picture, preferably nearly right ones."""
    present = {(t.colour, t.shape) for t in scene.things}
    for _ in range(30):
        colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
        if scene.things and rng.random() < 0.6:
            t = rng.choice(scene.things)
            colour, shape = (t.colour, shape) if rng.random() < 0.5 else (colour, t.shape)
        if (colour, shape) not in present:
            return colour, shape
    return "red", "circle"


def ask(rng: random.Random, scene, task, lang, held=None):
    """One question of the given task, or None if the scene allows none."""
    q = lambda **slots: wording(rng, lang, task, held, **slots)  # noqa: E731
    things = scene.things
    if task == "what":
        return q(), say.what(scene, lang)
    if task == "describe":
        return q(), say.describe(scene, lang)
    if task == "colours":
        return (q(), say.colours(scene, lang)) if things else None
    if task == "digits":
        return q(), say.digits(scene.number.text if scene.number else None, lang)
    if task == "background":
        return q(), say.background(scene.background, lang)
    if task == "count":
        return _count(rng, scene, lang, q)
    if task == "is_there":
        return _is_there(rng, scene, lang, q)
    if task in ("where", "box"):
        if rng.random() < 0.06:
            colour, shape = random_pair(rng, scene)
            text = bare(rng, colour, shape, lang)
            return q(the="the " + text if lang == "en" else text), say.absent(colour, shape, lang)
        if not things:
            return None
        thing = rng.choice(things)
        name = the(rng, scene, thing, lang)
        if name is None:
            return None
        if task == "box":
            label = say.name(thing.colour, thing.shape, lang)
            return q(the=name), say.box(dense.box(scene, thing), label)
        place = area(scene, thing)
        return (q(the=name), say.where(thing, place, lang)) if place else None
    if task in ("relation", "is_relation"):
        return _relation(rng, scene, task, lang, q)
    counts_c, counts_s = Counter(t.colour for t in things), Counter(t.shape for t in things)
    if task == "colour_of":
        one = [t for t in things if counts_s[t.shape] == 1]
        if not one:
            return None
        t = rng.choice(one)
        return q(shape=said(rng, None, t.shape, lang)[1]), say.colour_of(t.shape, t.colour, lang)
    if task == "shape_of":
        one = [t for t in things if counts_c[t.colour] == 1]
        if not one:
            return None
        t = rng.choice(one)
        return q(colour=said(rng, t.colour, None, lang)[0]), say.shape_of(t.shape, t.colour, lang)
    raise ValueError(task)


def _count(rng, scene, lang, q):
    roll = rng.random()
    colour = shape = None
    things = scene.things
    if roll > 0.3:
        if things and rng.random() < 0.85:
            t = rng.choice(things)
            colour, shape = t.colour, t.shape
        else:
            colour, shape = random_pair(rng, scene)
        if roll < 0.52:
            shape = None
        elif roll < 0.74:
            colour = None
    n = sum((colour in (None, t.colour)) and (shape in (None, t.shape)) for t in things)
    if colour or shape:
        text = noun_plural(bare(rng, colour, shape, lang), lang)
    elif lang == "en":
        text = rng.choice(["shapes", "objects", "things", "figures", "shapes", "objects", "items"])
    else:
        text = rng.choice(["图形", "形状", "物体", "东西"])
    return q(things=text), say.count(n, colour, shape, lang)


def _is_there(rng, scene, lang, q):
    roll = rng.random()
    if scene.things and rng.random() < 0.5:
        t = rng.choice(scene.things)
        colour, shape = t.colour, t.shape
    else:
        colour, shape = random_pair(rng, scene)
    if roll < 0.2:
        colour = None
    elif roll < 0.35:
        shape = None
    truth = any(colour in (None, t.colour) and shape in (None, t.shape) for t in scene.things)
    text = bare(rng, colour, shape, lang)
    slots = {"bare": text}
    if lang == "en":
        slots["a"] = say.article(text)
        slots["plural"] = noun_plural(text, lang)
    return q(**slots), say.is_there(truth, colour, shape, lang)


def _relation(rng, scene, task, lang, q):
    if len(scene.things) < 2:
        return None
    a, b = rng.sample(scene.things, 2)
    na, nb = the(rng, scene, a, lang), the(rng, scene, b, lang)
    rel = direction(a, b)
    if na is None or nb is None or rel is None:
        return None
    if task == "relation":
        return q(the=na, other=nb), say.relation(a, b, rel, lang)
    asked = rng.choice(["left", "right", "above", "below"])
    if rng.random() < 0.5:  # a true statement: one side of the real direction
        options = {
            "upper left": ["above", "left"],
            "upper right": ["above", "right"],
            "lower left": ["below", "left"],
            "lower right": ["below", "right"],
        }
        asked = rng.choice(options.get(rel, [rel]))
    words = (say.REL_EN if lang == "en" else say.REL_ZH)[asked]
    if lang == "en" and asked in ("left", "right") and rng.random() < 0.4:
        words = f"{asked} of"
    if lang == "zh" and rng.random() < 0.3:
        words = words[0] + rng.choice(["侧", "方"]) if asked in ("left", "right") else words[0] + "方"
    return q(the=na, other=nb, rel=words), say.relation(a, b, rel, lang)
