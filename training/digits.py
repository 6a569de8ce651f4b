"""Draws a number: with a font, or with wobbly strokes that look written by hand."""

import math
from itertools import pairwise

from PIL import Image, ImageDraw

from . import fonts

# One or more strokes per digit in a unit square, y downwards.
STROKES = {
    "0": [[(.5, 0), (.2, .12), (.1, .5), (.2, .88), (.5, 1), (.8, .88), (.9, .5), (.8, .12),
           (.5, 0)]],
    "1": [[(.3, .2), (.55, 0), (.55, 1)]],
    "2": [[(.12, .25), (.25, .05), (.5, 0), (.8, .08), (.85, .3), (.7, .55), (.1, 1), (.9, 1)]],
    "3": [[(.15, .1), (.5, 0), (.82, .12), (.8, .35), (.45, .48), (.85, .62), (.85, .88),
           (.5, 1), (.1, .9)]],
    "4": [[(.6, 0), (.1, .65), (.92, .65)], [(.7, .35), (.68, 1)]],
    "5": [[(.85, 0), (.22, 0), (.17, .45), (.5, .38), (.85, .55), (.85, .85), (.5, 1),
           (.12, .9)]],
    "6": [[(.75, .02), (.4, .2), (.15, .6), (.22, .9), (.5, 1), (.82, .88), (.85, .65), (.6, .5),
           (.3, .55), (.16, .72)]],
    "7": [[(.1, 0), (.9, 0), (.4, 1)]],
    "8": [[(.5, .48), (.2, .3), (.22, .08), (.5, 0), (.78, .08), (.8, .3), (.5, .48), (.15, .7),
           (.2, .93), (.5, 1), (.8, .93), (.85, .7), (.5, .48)]],
    "9": [[(.84, .3), (.7, .48), (.4, .5), (.15, .35), (.2, .1), (.5, 0), (.8, .1), (.84, .3),
           (.8, .65), (.6, 1)]],
}
SPECIAL = {"1": [[[(.5, 0), (.5, 1)]], [[(.3, .2), (.55, 0), (.55, 1)], [(.25, 1), (.85, 1)]]],
           "7": [[[(.1, 0), (.9, 0), (.4, 1)], [(.3, .5), (.75, .5)]]]}


def _smooth(points, rounds=2):
    for _ in range(rounds):
        out = [points[0]]
        for (ax, ay), (bx, by) in pairwise(points):
            out += [(ax * .75 + bx * .25, ay * .75 + by * .25),
                    (ax * .25 + bx * .75, ay * .25 + by * .75)]
        points = [*out, points[-1]]
    return points


def _strokes(rng, digit):
    if digit in SPECIAL and rng.random() < 0.4:
        return rng.choice(SPECIAL[digit])
    return STROKES[digit]


def handwritten(rng, text: str, height: float):
    """A mask (mode L) with the digits as jittered round strokes, and the middles of the digits."""
    ss = 2
    h = height * ss
    width = h * rng.uniform(0.5, 0.75)
    pen = max(2.0, h * rng.uniform(0.06, 0.16))
    gap, slant = rng.uniform(0.15, 0.4) * width, rng.uniform(-0.15, 0.3)
    pad = pen + h * 0.2
    total = len(text) * (width + gap) - gap
    mask = Image.new("L", (int(total + 2 * pad), int(h + 2 * pad)), 0)
    draw = ImageDraw.Draw(mask)
    for i, digit in enumerate(text):
        angle, size = math.radians(rng.uniform(-7, 7)), rng.uniform(0.88, 1.0)
        dx, dy = pad + i * (width + gap), pad + rng.uniform(0, 0.08) * h
        for stroke in _strokes(rng, digit):
            jitter = [(x + rng.gauss(0, .025), y + rng.gauss(0, .025)) for x, y in stroke]
            points = []
            curve = jitter if digit in "147" else _smooth(jitter)
            for x, y in curve:
                x, y = (x + slant * (0.5 - y) - 0.5) * size, (y - 0.5) * size
                x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y
                points.append((dx + (x + 0.5) * width, dy + (y + 0.5) * h))
            draw.line(points, fill=255, width=round(pen), joint="curve")
            for x, y in points[:: max(1, len(points) - 1)]:
                draw.ellipse([x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2], fill=255)
    mask = mask.reduce(ss)
    box = mask.getbbox()
    middles = [(pad + i * (width + gap) + width / 2) / ss - box[0] for i in range(len(text))]
    return mask.crop(box), middles


def printed(rng, text: str, height: float, font_name: str, antialias: bool = True):
    font = fonts.load(font_name, max(6, round(height / 0.72)))
    space = rng.choice([0, 0, 0, round(height * rng.uniform(0, 0.4))])
    widths = [font.getlength(c) + space for c in text] if space else [font.getlength(text)]
    mask = Image.new("L", (int(sum(widths) + height * 2), int(height * 3)), 0)
    draw = ImageDraw.Draw(mask)
    draw.fontmode = "L" if antialias else "1"
    x = height * 0.7
    ends = [font.getlength(text[:i]) + space * i for i in range(len(text) + 1)]
    middles = [x + (a + b - space) / 2 for a, b in pairwise(ends)]
    for part, advance in zip(text if space else [text], widths, strict=True):
        draw.text((x, height * 0.6), part, fill=255, font=font)
        x += advance
    box = mask.getbbox()
    return mask.crop(box), [m - box[0] for m in middles]
