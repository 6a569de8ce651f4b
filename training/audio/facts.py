"""What every audio token should know, and the code in which it says so: see `training/dense.py` for the idea.

A token stands for 40 ms. Each fact has a fixed direction in the space of the tokens, all at right angles, and the tower
is trained to make a token the sum of the directions that are true of it.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .clips import KINDS, MOST, Clip

TOKEN = 640  # samples
# name: (number of values, weight in the loss). A value of -1 means "says nothing here" and has no direction.
FACTS = {
    "sound": (4, 1.0),  # of this moment: nothing, a digit, other speech, a beep
    "digit": (10, 3.0),  # that is spoken here
    "which": (MOST, 1.0),  # of the digits or beeps is here
    "last": (2, 0.5),  # nothing comes after this one
    # Of the whole clip:
    "kind": (len(KINDS), 0.5),
    "count": (MOST + 1, 0.7),
    "voice": (3, 0.7),  # nobody, a man, a woman
    "pitch": (3, 0.4),  # no beep, low, high
}
NAMES = list(FACTS)
SIZES, WEIGHTS = (list(column) for column in zip(*FACTS.values(), strict=True))
LENGTH = 3.0  # of each direction


def labels(clip: Clip, tokens: int) -> np.ndarray:
    """The value of every fact in every token, int64 (tokens, len(FACTS))."""
    out = np.full((tokens, len(FACTS)), -1, np.int64)
    column = {name: i for i, name in enumerate(NAMES)}
    out[:, column["sound"]] = 0
    out[:, column["kind"]] = KINDS.index(clip.kind)
    out[:, column["count"]] = clip.count
    out[:, column["voice"]] = 0 if clip.woman is None else 1 + clip.woman
    out[:, column["pitch"]] = 0 if clip.high is None else 1 + clip.high
    sound = {"digits": 1, "talk": 2, "beeps": 3}.get(clip.kind, 0)
    for i, (first, last) in enumerate(clip.spans):
        # At least half of a token, but always one of them.
        a, b = round(first / TOKEN), round(last / TOKEN)
        here = slice(min(a, tokens - 1), max(b, a + 1))
        out[here, column["sound"]] = sound
        if clip.count:
            out[here, column["which"]] = i
            out[here, column["last"]] = i == clip.count - 1
        if clip.digits:
            out[here, column["digit"]] = clip.digits[i]
    return out


class Code(nn.Module):
    """The directions of all facts, (sum of values, width), fixed and orthogonal."""

    def __init__(self, width: int, seed: int = 0):
        super().__init__()
        start = torch.randn(width, sum(SIZES), generator=torch.Generator().manual_seed(seed))
        directions, _ = torch.linalg.qr(start)
        self.register_buffer("directions", directions.T.contiguous() * LENGTH)

    def tokens(self, labels: torch.Tensor) -> torch.Tensor:
        """The tokens a perfect tower would give, (tokens, width)."""
        offsets = torch.tensor([0, *SIZES[:-1]]).cumsum(0)
        known = labels >= 0
        rows = self.directions[torch.where(known, labels + offsets, 0)] * known[..., None]  # (tokens, facts, width)
        return rows.sum(1)

    def _values(self, features: torch.Tensor):
        """A perfect token reads 8 for what is true and 0 for all else."""
        return (features.float() @ self.directions.T * (8 / LENGTH**2)).split(SIZES, -1)

    def loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """How far the tokens (tokens, width) are from saying what is true."""
        total = (features.float() - self.tokens(labels)).square().mean()
        for weight, logits, wanted in zip(WEIGHTS, self._values(features), labels.unbind(1), strict=True):
            if (wanted >= 0).any():
                total = total + weight * F.cross_entropy(logits, wanted, ignore_index=-1)
        return total

    @torch.no_grad()
    def accuracy(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Share of tokens in which the strongest value of a fact is the true one, where there is one."""
        out = {}
        for name, logits, wanted in zip(NAMES, self._values(features), labels.unbind(1), strict=True):
            there = wanted >= 0
            if there.any():
                out[name] = (logits.argmax(-1) == wanted)[there].float().mean().item()
        return out
