"""The first stage of the visual tower: it learns alone what lies in every cell of a picture."""

import random

import torch

from . import dense, sequences
from .collate import collate
from .scenes import invent

PICTURES = 48  # per step
EASY_STEPS = 200  # at first mostly pictures with few things
KINDS = {"shapes": 4, "count": 4, "number": 6, "mixed": 2}


def batch(builder, seed: int, step: int, pictures: int = PICTURES):
    """Pictures alone; the same seed and step give the same pictures."""
    rng = random.Random(f"see {seed} {step}")
    first = sequences.size(random.Random(f"both {seed} {step // 2}"))  # two processes wait for each other
    out = []
    for wh in sequences.sizes_like(rng, pictures, first):
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        sequence = sequences.Sequence()
        builder.picture(sequence, invent(rng, *wh, kind, ease=max(0.0, 1 - step / EASY_STEPS)))
        out.append(sequence)
    return collate(out, pad_id=0)


def features(net, data) -> torch.Tensor:
    """The visual tokens of all pictures of a batch, [cells, width]."""
    with torch.autocast("cpu", torch.bfloat16):
        return net.model.visual(data["pixels"], data["grids"]).pooler_output


def loss(net, code: dense.Code, data):
    return code.loss(features(net, data), data["cells"])
