"""Draws a number: with a font, or with wobbly strokes that look written by hand."""

import math
from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from . import fonts

# One or more strokes per digit in a unit square, y downwards.
STROKES = {
    "0": [[(0.5, 0), (0.2, 0.12), (0.1, 0.5), (0.2, 0.88), (0.5, 1), (0.8, 0.88), (0.9, 0.5), (0.8, 0.12), (0.5, 0)]],
    "1": [[(0.3, 0.2), (0.55, 0), (0.55, 1)]],
    "2": [[(0.12, 0.25), (0.25, 0.05), (0.5, 0), (0.8, 0.08), (0.85, 0.3), (0.7, 0.55), (0.1, 1), (0.9, 1)]],
    "3": [
        [
            (0.15, 0.1),
            (0.5, 0),
            (0.82, 0.12),
            (0.8, 0.35),
            (0.45, 0.48),
            (0.85, 0.62),
            (0.85, 0.88),
            (0.5, 1),
            (0.1, 0.9),
        ]
    ],
    "4": [[(0.6, 0), (0.1, 0.65), (0.92, 0.65)], [(0.7, 0.35), (0.68, 1)]],
    "5": [[(0.85, 0), (0.22, 0), (0.17, 0.45), (0.5, 0.38), (0.85, 0.55), (0.85, 0.85), (0.5, 1), (0.12, 0.9)]],
    "6": [
        [
            (0.75, 0.02),
            (0.4, 0.2),
            (0.15, 0.6),
            (0.22, 0.9),
            (0.5, 1),
            (0.82, 0.88),
            (0.85, 0.65),
            (0.6, 0.5),
            (0.3, 0.55),
            (0.16, 0.72),
        ]
    ],
    "7": [[(0.1, 0), (0.9, 0), (0.4, 1)]],
    "8": [
        [
            (0.5, 0.48),
            (0.2, 0.3),
            (0.22, 0.08),
            (0.5, 0),
            (0.78, 0.08),
            (0.8, 0.3),
            (0.5, 0.48),
            (0.15, 0.7),
            (0.2, 0.93),
            (0.5, 1),
            (0.8, 0.93),
            (0.85, 0.7),
            (0.5, 0.48),
        ]
    ],
    "9": [
        [
            (0.84, 0.3),
            (0.7, 0.48),
            (0.4, 0.5),
            (0.15, 0.35),
            (0.2, 0.1),
            (0.5, 0),
            (0.8, 0.1),
            (0.84, 0.3),
            (0.8, 0.65),
            (0.6, 1),
        ]
    ],
}
SPECIAL = {
    "1": [[[(0.5, 0), (0.5, 1)]], [[(0.3, 0.2), (0.55, 0), (0.55, 1)], [(0.25, 1), (0.85, 1)]]],
    "7": [[[(0.1, 0), (0.9, 0), (0.4, 1)], [(0.3, 0.5), (0.75, 0.5)]]],
}


def _smooth(points, rounds=2):
    for _ in range(rounds):
        out = [points[0]]
        for (ax, ay), (bx, by) in pairwise(points):
            out += [(ax * 0.75 + bx * 0.25, ay * 0.75 + by * 0.25), (ax * 0.25 + bx * 0.75, ay * 0.25 + by * 0.75)]
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
            jitter = [(x + rng.gauss(0, 0.025), y + rng.gauss(0, 0.025)) for x, y in stroke]
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


def bent(rng, mask, middles, amount: float):
    """The mask slanted and its rows and columns shifted along slow waves, by up to `amount` of its height."""
    w, h = mask.size
    pad = math.ceil(0.3 * h) + 1
    wide = np.pad(np.asarray(mask), ((0, 0), (pad, pad)))
    x, y = np.arange(w + 2 * pad), np.arange(h)
    waves = [amount * h * np.sin(2 * np.pi * (t / h * rng.uniform(0.5, 1.6) + rng.random())) for t in (x, y)]
    slant = rng.uniform(-0.25, 0.25) * (y - h / 2)
    rows = np.clip(y[:, None] + waves[0], 0, h - 1).astype(int)
    columns = np.clip(x + (waves[1] + slant)[:, None], 0, len(x) - 1).astype(int)
    mask = Image.fromarray(wide[rows, columns])
    box = mask.getbbox()
    return mask.crop(box), [m + pad - box[0] for m in middles]


def outlined(mask, middles, width: float):
    """The mask's contour alone, a line as wide as `width` of its height."""
    scale = max(1.0, mask.height / 64)  # filters as wide as a large picture's line take seconds
    small = mask.resize((max(1, round(mask.width / scale)), round(mask.height / scale)))
    line = max(1, round(width * small.height))
    inner = 1 + line // 3
    pad = inner + line
    wide = Image.new("L", (small.width + 2 * pad, small.height + 2 * pad), 0)
    wide.paste(small, (pad, pad))
    grown = wide.filter(ImageFilter.MaxFilter(2 * inner + 1))
    ring = ImageChops.subtract(grown.filter(ImageFilter.MaxFilter(2 * line + 1)), grown)
    ring = ring.resize((round(ring.width * scale), round(ring.height * scale)), Image.BICUBIC)
    return ring, [m + pad * scale for m in middles]
