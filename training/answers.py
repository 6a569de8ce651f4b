"""Sentences tiny-vl answers with, in English and Chinese."""

from collections import Counter

from .palette import COLOURS, SHAPES, ZH_AREA, ZH_COLOUR, ZH_SHAPE

PLURAL = {"cross": "crosses", "hexagon": "hexagons"}
REL_EN = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
    "upper left": "to the upper left of",
    "upper right": "to the upper right of",
    "lower left": "to the lower left of",
    "lower right": "to the lower right of",
}
REL_ZH = {
    "left": "左边",
    "right": "右边",
    "above": "上面",
    "below": "下面",
    "upper left": "左上方",
    "upper right": "右上方",
    "lower left": "左下方",
    "lower right": "右下方",
}
AT_EN = {
    "top left": "at the top left",
    "top": "at the top",
    "top right": "at the top right",
    "left": "on the left",
    "center": "in the center",
    "right": "on the right",
    "bottom left": "at the bottom left",
    "bottom": "at the bottom",
    "bottom right": "at the bottom right",
}
TO_EN = {
    "top left": "the top left",
    "top": "the top",
    "top right": "the top right",
    "left": "the left",
    "center": "the center",
    "right": "the right",
    "bottom left": "the bottom left",
    "bottom": "the bottom",
    "bottom right": "the bottom right",
}


def article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def plural(noun: str) -> str:
    return PLURAL.get(noun, noun + "s")


def join(parts, lang: str) -> str:
    last = " and " if lang == "en" else "和"
    return ((", " if lang == "en" else "、").join(parts[:-1]) + last if parts[:-1] else "") + parts[-1]


def groups(scene):
    """(colour, shape) with how often, in one fixed order so that there is one right answer."""
    counts = Counter((t.colour, t.shape) for t in scene.things)
    order = sorted(counts, key=lambda k: (COLOURS.index(k[0]), SHAPES.index(k[1])))
    return [(c, s, counts[c, s]) for c, s in order]


def name(colour, shape, lang):
    return f"{colour} {shape}" if lang == "en" else f"{ZH_COLOUR[colour]}的{ZH_SHAPE[shape]}"


def some(colour, shape, n, lang):
    if lang == "zh":
        return f"{n if n > 1 else '一'}个{name(colour, shape, lang)}"
    return article(f"{colour} {shape}") if n == 1 else f"{n} {colour} {plural(shape)}"


def contents(scene, lang):
    parts = [some(c, s, n, lang) for c, s, n in groups(scene)]
    if scene.number:
        parts.append(("the number " if lang == "en" else "数字") + scene.number.text)
    return join(parts, lang) if parts else None


def what(scene, lang):
    inside = contents(scene, lang)
    if inside is None:
        return "The picture is empty." if lang == "en" else "图片是空白的。"
    return f"The picture shows {inside}." if lang == "en" else f"图中有{inside}。"


def describe(scene, lang):
    inside = contents(scene, lang)
    if inside is None:
        return what(scene, lang)
    if lang == "en":
        return f"The picture shows {inside} on {article(scene.background)} background."
    return f"{ZH_COLOUR[scene.background]}背景上有{inside}。"


def colours(scene, lang):
    found = [c for c in COLOURS if any(t.colour == c for t in scene.things)]
    if lang == "zh":
        return f"颜色有{join([ZH_COLOUR[c] for c in found], lang)}。"
    return f"The colors are {join(found, lang)}." if len(found) > 1 else f"The color is {found[0]}."


def count(n, colour, shape, lang):
    if lang == "zh":
        what_ = (ZH_COLOUR[colour] + "的" if colour else "") + (ZH_SHAPE[shape] if shape else "图形")
        return f"图中有{n}个{what_}。" if n else f"图中没有{what_}。"
    noun = shape or "shape"
    prefix = colour + " " if colour else ""
    if n == 0:
        return f"There are no {prefix}{plural(noun)} in the picture."
    if n == 1:
        return f"There is 1 {prefix}{noun} in the picture."
    return f"There are {n} {prefix}{plural(noun)} in the picture."


def where(thing, area, lang):
    n = name(thing.colour, thing.shape, lang)
    if lang == "en":
        return f"The {n} is {AT_EN[area]} of the picture."
    return f"{n}在图片的{ZH_AREA[area]}。"


def absent(colour, shape, lang):
    if lang == "zh":
        return f"图中没有{name(colour, shape, lang)}。"
    return f"There is no {colour} {shape} in the picture."


def relation(a, b, rel, lang):
    na, nb = name(a.colour, a.shape, lang), name(b.colour, b.shape, lang)
    return f"The {na} is {REL_EN[rel]} the {nb}." if lang == "en" else f"{na}在{nb}的{REL_ZH[rel]}。"


def digits(text, lang):
    if text is None:
        return "There are no digits in the picture." if lang == "en" else "图中没有数字。"
    if lang == "zh":
        return f"图中的数字是{text}。"
    return f"The {'digit' if len(text) == 1 else 'number'} is {text}."


def is_there(truth, colour, shape, lang):
    if lang == "zh":
        n = (ZH_COLOUR[colour] + "的" if colour else "") + (ZH_SHAPE[shape] if shape else "图形")
        return f"有，图中有{n}。" if truth else f"没有，图中没有{n}。"
    n = f"{colour} {shape or 'shape'}" if colour else shape
    return f"Yes, there is {article(n)}." if truth else f"No, there is no {n}."


def colour_of(shape, colour, lang):
    return f"The {shape} is {colour}." if lang == "en" else f"{ZH_SHAPE[shape]}是{ZH_COLOUR[colour]}的。"


def shape_of(shape, colour, lang):
    return (
        f"The {colour} shape is {article(shape)}."
        if lang == "en"
        else f"{ZH_COLOUR[colour]}的图形是{ZH_SHAPE[shape]}。"
    )


def background(colour, lang):
    return f"The background is {colour}." if lang == "en" else f"背景是{ZH_COLOUR[colour]}的。"


def box(values, label):
    return '[{"bbox_2d": [' + ", ".join(map(str, values)) + f'], "label": "{label}"}}]'
