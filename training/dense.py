"""What every image token should know, and the code in which it says so.

Answers alone teach a visual tower very slowly. The scenes are known exactly, so every token can be told which
thing lies under it, where that thing's box is and which digits are centred in it. Each of these facts has a fixed
direction in the space of the visual tokens, all at right angles, and a token is trained to be the sum of the
directions that are true of it. Coordinates are told in twenty steps: a network finds "the fourth of twenty" in
such a token far more easily than it finds 0.17 in a smooth scale. What needs all cells at once, as counting does, is
told too: the tower sees them all, the words come one after the other.
"""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

from .answers import groups
from .palette import AREAS, COLOURS, SHAPES

DIGITS = 6  # the longest number
BINS = 20  # of a coordinate
EDGES = "x1", "y1", "x2", "y2"
# name: (number of values, weight in the loss). A value of -1 means "says nothing here" and has no direction.
FACTS = {
    "shape": (len(SHAPES) + 1, 3.0),  # 0: nothing lies here
    "colour": (len(COLOURS) + 1, 2.0),
    "centre": (2, 1.0),  # the middle of a thing lies in this cell
    "background": (len(COLOURS), 0.5),
    "area": (len(AREAS), 1.0),
    **dict.fromkeys(EDGES, (BINS, 0.6)),
    # How many things like the one here the picture has, itself included, less one.
    "same": (6, 1.0),
    "same colour": (6, 0.8),
    "same shape": (6, 0.8),
    "all": (6, 0.5),
    "after": (7, 1.0),  # how many more are named after this one when the picture is described
    "row": (8, 0.2),  # of this cell, in eighths of the picture
    "column": (8, 0.2),
    # Digit k of the number is centred here; 10: it is not.
    **{f"digit {k}": (11, 1.5) for k in range(DIGITS)},
    "before": (6, 1.0),  # how many are named before this one when the picture is described
    "digits after": (DIGITS, 1.0),  # how many digits of the number follow the one here
    "colours after": (4, 1.0),  # how many more colours are named after this one's when all are listed; 3 or more
}
NAMES = list(FACTS)
SIZES, WEIGHTS = (list(column) for column in zip(*FACTS.values(), strict=True))
# Directions of the facts up to the digits, of the next two, and of the last: each came later than the one before.
CAME = 240, 12, 4
EMPTY = {"shape": 0, "colour": 0, "centre": 0, **{f"digit {k}": 10 for k in range(DIGITS)}}
LENGTH = 2.0  # of each direction; a token is the sum of at most 26 of them in a space of 256
FINE = 8  # label pixels along the side of a cell


def labels(scene, rows: int, cols: int) -> tuple[np.ndarray, list[list[int]], list[int]]:
    """The value of every fact in every cell, int64 [cells, len(FACTS)]; the cells of every thing and digit."""
    out = np.full((rows, cols, len(FACTS)), -1, np.int64)
    column = {name: i for i, name in enumerate(NAMES)}
    for name, value in EMPTY.items():
        out[..., column[name]] = value
    out[..., column["background"]] = COLOURS.index(scene.background)
    out[..., column["row"]] = (np.arange(rows) * 8 // rows)[:, None]
    out[..., column["column"]] = np.arange(cols) * 8 // cols
    sx, sy = cols * FINE / scene.width, rows * FINE / scene.height
    fine = Image.new("L", (cols * FINE, rows * FINE), 0)
    draw = ImageDraw.Draw(fine)
    for i, t in enumerate(scene.things):
        draw.polygon([(x * sx, y * sy) for x, y in t.points], fill=i + 1)
    cells = np.asarray(fine).reshape(rows, FINE, cols, FINE).transpose(0, 2, 1, 3)
    cells = cells.reshape(rows, cols, FINE * FINE)
    best = np.full((rows, cols), FINE * FINE * 0.08)
    owner = np.full((rows, cols), -1)
    for i, t in enumerate(scene.things):
        share = (cells == i + 1).sum(-1)
        cx, cy = t.centre
        middle = _cell(cy / scene.height, rows), _cell(cx / scene.width, cols)
        here = share > best
        here[middle] = True
        best = np.where(here, np.maximum(share, best), best)
        facts = {"shape": SHAPES.index(t.shape) + 1, "colour": COLOURS.index(t.colour) + 1}
        facts["area"] = 3 * _cell(cy / scene.height, 3) + _cell(cx / scene.width, 3)
        facts |= {e: min(BINS - 1, v * BINS // 1000) for e, v in zip(EDGES, box(scene, t), strict=True)}
        facts |= _crowd(scene, t)
        for name, value in facts.items():
            out[here, column[name]] = value
        owner[here] = i
        out[*middle, column["centre"]] = 1
    digits = []
    if scene.number:
        for k, (digit, (x, y)) in enumerate(zip(scene.number.text, scene.number.centres, strict=True)):
            r, c = _cell(y / scene.height, rows), _cell(x / scene.width, cols)
            out[r, c, column[f"digit {k}"]] = int(digit)
            out[r, c, column["digits after"]] = len(scene.number.text) - 1 - k
            digits.append(r * cols + c)
    things = [np.flatnonzero(owner == i).tolist() for i in range(len(scene.things))]
    return out.reshape(-1, len(FACTS)), things, digits


def box(scene, thing) -> list[int]:
    """x1, y1, x2, y2 in thousandths of the picture, in steps of ten: fine enough for the eye."""
    scale = (scene.width, scene.height, scene.width, scene.height)
    raw = [max(0, min(1000, v * 1000 / s)) for v, s in zip(thing.box, scale, strict=True)]
    return [int(round(v / 10) * 10) for v in raw]


def _crowd(scene, thing) -> dict[str, int]:
    """What is true of a thing among the others."""
    named = [(colour, shape) for colour, shape, _ in groups(scene)]
    others = [t for t in scene.things if t is not thing]
    colour, shape = ([getattr(t, what) == getattr(thing, what) for t in others] for what in ("colour", "shape"))
    before = named.index((thing.colour, thing.shape))
    later = {c for c, _ in named[before:]} - {thing.colour}
    return {
        "same": sum(map(all, zip(colour, shape, strict=True))),
        "same colour": sum(colour),
        "same shape": sum(shape),
        "all": len(others),
        "before": before,
        "after": len(named) - 1 - before + bool(scene.number),
        "colours after": min(3, len(later)),
    }


def _cell(v, n):
    return min(n - 1, max(0, int(v * n)))


class Code(nn.Module):
    """The directions of all facts, [sum of values, width], fixed and orthogonal."""

    def __init__(self, width: int, seed: int = 0):
        super().__init__()
        # One column after the other, so that a fact added at the end leaves the directions of the others alone.
        random = torch.Generator().manual_seed(seed)
        assert sum(CAME) == sum(SIZES)
        start = torch.cat([torch.randn(width, n, generator=random) for n in CAME], 1)
        directions, _ = torch.linalg.qr(start)
        self.register_buffer("directions", directions.T.contiguous() * LENGTH)

    def tokens(self, labels: torch.Tensor) -> torch.Tensor:
        """The tokens a perfect visual tower would give, [cells, width]."""
        offsets = torch.tensor([0, *SIZES[:-1]]).cumsum(0)
        known = labels >= 0
        index = torch.where(known, labels + offsets, 0)
        rows = self.directions[index] * known[..., None]  # [cells, facts, width]
        return rows.sum(1)

    def loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """How far the visual tokens [cells, width] are from saying what is true."""
        features = features.float()
        # A perfect token reads 8 for what is true and 0 for all else.
        values = (features @ self.directions.T * (8 / LENGTH**2)).split(SIZES, -1)
        total = (features - self.tokens(labels)).square().mean() * 2.0
        for name, weight, logits, wanted in zip(NAMES, WEIGHTS, values, labels.unbind(1), strict=True):
            each = F.cross_entropy(logits, wanted, reduction="none", ignore_index=-1)
            if name not in EMPTY:
                total = total + weight * each.sum() / max(1, (wanted >= 0).sum())
                continue
            # Cells without a thing are many: they count as much as the others together.
            filled = wanted != EMPTY[name]
            total = total + weight * 0.5 * each[~filled].mean()
            if filled.any():
                share = min(1.0, filled.sum().item() / 20)
                total = total + weight * 0.5 * share * each[filled].mean()
        return total

    @torch.no_grad()
    def accuracy(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Share of cells where the strongest value of a fact is the true one; of those that are not empty."""
        values = (features.float() @ self.directions.T).split(SIZES, -1)
        out = {}
        for name, logits, wanted in zip(NAMES, values, labels.unbind(1), strict=True):
            there = (wanted >= 0) & (wanted != EMPTY.get(name, -1))
            if there.any():
                out[name] = (logits.argmax(-1) == wanted)[there].float().mean().item()
        return out
