"""Turns sequences into padded tensors."""

import numpy as np
import torch

from . import pixels
from .fastvision import LOOKING


def collate(sequences, pad_id: int) -> dict:
    length = max(len(s.ids) for s in sequences)
    length = (length + 7) // 8 * 8
    rows = len(sequences)
    ids = torch.full((rows, length), pad_id)
    labels = torch.full((rows, length), -100)
    weights = torch.zeros(rows, length)
    segment = torch.full((rows, length), -1)
    positions = torch.zeros(3, rows, length, dtype=torch.long)
    images, grids, cells = [], [], []
    look = {what: [] for what in LOOKING}
    groups = dict.fromkeys(look, 0)
    for i, s in enumerate(sequences):
        n = len(s.ids)
        ids[i, :n] = torch.tensor(s.ids)
        segment[i, :n] = torch.tensor(s.segment)
        positions[:, i, :n] = torch.tensor(s.positions).T
        learn = torch.tensor(s.learn)
        # labels[t] is what should follow token t; only answers are learned.
        target = torch.where(learn > 0, ids[i, :n], -100)
        labels[i, : n - 1] = target[1:]
        weights[i, : n - 1] = learn[1:]
        for what, query, tokens in s.look:
            look[what] += [(i, query, token, groups[what]) for token in tokens]
            groups[what] += 1
        images += s.images
        cells += s.labels
        grids += s.grids
    return {
        "cells": torch.from_numpy(np.concatenate(cells)) if cells else None,  # [cells, facts]
        # [4, entries]: row, query, key, group
        "look": {what: torch.tensor(entries).T for what, entries in look.items() if entries},
        "ids": ids,
        "labels": labels,
        "weights": weights,
        "segment": segment,
        "positions": positions,
        "pixels": torch.cat([pixels.patchify(im) for im in images]) if images else None,
        "grids": torch.tensor([(1, rows * 2, cols * 2) for rows, cols in grids]) if grids else None,
    }


def visibility(segment: torch.Tensor) -> torch.Tensor:
    """[rows, 1, length, length]: may the query (row) see the key (column)?"""
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    key, query = segment[:, None, :], segment[:, :, None]
    return (causal & ((key == 0) | (key == query)))[:, None]
