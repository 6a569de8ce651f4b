"""What every image token should know: labels for the cells of a picture, and heads that read them.

Answers alone teach the visual tower very slowly. The scenes are known exactly, so each token can
also be told which thing lies under it, where that thing's box is and which digits are centred in it.
The heads are dropped after training.
"""

import numpy as np
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

from .palette import COLOURS, SHAPES

SLOTS = 5  # digits in one cell, left to right
SIZES = [len(SHAPES) + 1, len(COLOURS) + 1, 2, len(COLOURS)] + [11] * SLOTS
WEIGHTS = [2.0, 1.0, 0.7, 0.5, 2.0, 1.5, 1.0, 0.7, 0.5]
FINE = 8  # label pixels along the side of a cell


def labels(scene, rows: int, cols: int):
    """Integer labels [cells, len(SIZES)] and boxes [cells, 4] in 0..1 (only where a thing is)."""
    out = np.zeros((rows, cols, len(SIZES)), np.int64)
    boxes = np.zeros((rows, cols, 4), np.float32)
    out[..., 3] = COLOURS.index(scene.background)
    sx, sy = cols * FINE / scene.width, rows * FINE / scene.height
    fine = Image.new("L", (cols * FINE, rows * FINE), 0)
    draw = ImageDraw.Draw(fine)
    for i, t in enumerate(scene.things):
        draw.polygon([(x * sx, y * sy) for x, y in t.points], fill=i + 1)
    cells = np.asarray(fine).reshape(rows, FINE, cols, FINE).transpose(0, 2, 1, 3)
    cells = cells.reshape(rows, cols, FINE * FINE)
    best = np.full((rows, cols), FINE * FINE * 0.08)
    for i, t in enumerate(scene.things):
        share = (cells == i + 1).sum(-1)
        here = share > best
        best = np.where(here, share, best)
        out[here, 0] = SHAPES.index(t.shape) + 1
        out[here, 1] = COLOURS.index(t.colour) + 1
        x1, y1, x2, y2 = t.box
        boxes[here] = (x1 / scene.width, y1 / scene.height, x2 / scene.width, y2 / scene.height)
        cx, cy = t.centre
        r, c = _cell(cy / scene.height, rows), _cell(cx / scene.width, cols)
        out[r, c, 2] = 1
    if scene.number:
        used = {}
        for digit, (x, y) in zip(scene.number.text, scene.number.centres, strict=True):
            r, c = _cell(y / scene.height, rows), _cell(x / scene.width, cols)
            slot = used.get((r, c), 0)
            used[r, c] = slot + 1
            if slot < SLOTS:
                out[r, c, 4 + slot] = int(digit) + 1
    return out.reshape(-1, len(SIZES)), boxes.reshape(-1, 4)


def _cell(v, n):
    return min(n - 1, max(0, int(v * n)))


class Heads(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, sum(SIZES) + 4)

    def forward(self, features, wanted, boxes):
        values = self.out(self.norm(features.float())).split([*SIZES, 4], -1)
        loss = 0.0
        for i, logits in enumerate(values[:-1]):
            loss = loss + WEIGHTS[i] * _balanced(logits, wanted[:, i], spread=i == 3)
        there = wanted[:, 0] > 0
        if there.any():
            loss = loss + 8 * F.smooth_l1_loss(values[-1][there], boxes[there], beta=0.05)
        return loss


def _balanced(logits, wanted, spread):
    """Empty cells are many: they count as much as the filled ones together."""
    each = F.cross_entropy(logits, wanted, reduction="none")
    if spread:
        return 0.5 * each.mean()
    filled = wanted > 0
    total = 0.5 * each[~filled].mean()
    if filled.any():
        total = total + 0.5 * each[filled].mean() * min(1.0, filled.sum().item() / 20)
    return total
