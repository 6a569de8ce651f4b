"""Low-rank adapters (LoRA, arXiv:2106.09685) beside the base weights, several of them in one forward pass.

An adapter adds `x @ down.T @ up` to what some linear layers give. The weights themselves stay as they are, so one base
carries any number of adapters. Which rows are whose is said once per forward pass, in the tower's `Lanes`; a layer with
an adapter adds two small products per adapter. While nobody in the batch has one, all that is left of this is one look
at an empty tuple per layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from sensorium.model.linear import Linear


class Pair(NamedTuple):
    """The two factors of what an adapter adds to one of our layers."""

    down: torch.Tensor  # (rank, in_features)
    up: torch.Tensor  # (rank, out_features), with the adapter's scale in it


@dataclass(frozen=True, eq=False)
class Lora:
    """A loaded adapter. Sequences hold on to it, so it may be unloaded at any time: it goes when the last one ends.

    Attributes:
        key: a hash of the adapter's files; equal keys, equal outputs.
        pairs: by the layers it changes.
        parts: what it changes: "decoder", or the names of encoders.
        rank: the largest rank among its layers.
    """

    key: str
    pairs: Mapping[Linear, Pair]
    parts: frozenset[str]
    rank: int

    @property
    def num_bytes(self) -> int:
        """Memory its tensors take."""
        return sum(pair.down.nbytes + pair.up.nbytes for pair in self.pairs.values())


Groups = Sequence[tuple[Lora, "torch.Tensor | None"]]  # adapters and their rows, (num_rows,) int64; None: all rows


def group_rows(owners: Sequence[tuple[Lora | None, int]], device: torch.device) -> Groups:
    """Say which rows are whose.

    Args:
        owners: (adapter, number of rows) in row order.
    """
    used = dict.fromkeys(lora for lora, _ in owners)
    if len(used) == 1:
        (only,) = used
        return () if only is None else ((only, None),)
    of_row = np.repeat(np.arange(len(owners)), [count for _, count in owners])  # (num_rows,)
    number = {lora: index for index, lora in enumerate(used)}
    adapter = np.array([number[lora] for lora, _ in owners])[of_row]  # (num_rows,)
    return [
        (lora, torch.from_numpy(np.flatnonzero(adapter == index)).to(device))
        for lora, index in number.items()
        if lora is not None
    ]


class Lanes:
    """Whose the rows of the forward pass at hand are; shared by the layers of a tower."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: Groups = ()

    def touch(self, layer: Linear) -> bool:
        """Whether any adapter at hand changes `layer`: if not, it may run fused."""
        return any(layer in lora.pairs for lora, _ in self.groups)

    def add_(self, layer: Linear, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add to `y`, (num_rows, out_features), what the adapters at hand make of `x`, (num_rows, in_features)."""
        for lora, rows in self.groups:
            pair = lora.pairs.get(layer)
            if pair is None:
                continue
            if rows is None:
                y.addmm_(F.linear(x, pair.down), pair.up)
            else:
                y.index_add_(0, rows, F.linear(x[rows], pair.down) @ pair.up)
        return y


class Site(NamedTuple):
    """Where a linear layer of the checkpoint went: into `size` outputs of one of ours, from `start` on.

    `scale` is a factor, (size,), that was multiplied into its weights.
    """

    layer: Linear
    start: int
    size: int
    scale: torch.Tensor | None


class Sites:
    """The layers of a tower which adapters may change, by the names that `Family.rename` gives them.

    `unused` are layers which the checkpoint has and the tower does not run: what an adapter does to them has no effect.
    """

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.unused: set[str] = set()
        self._by_name: dict[str, Site] = {}

    def place(self, layer: Linear, widths: Mapping[str, int], scale: torch.Tensor | None = None) -> Linear:
        """Note that `layer` gives the outputs of the checkpoint's layers in `widths`, one behind the other."""
        layer.lanes = self.lanes
        start = 0
        for name, size in widths.items():
            self._by_name[name] = Site(layer, start, size, scale)
            start += size
        return layer

    def withdraw(self, name: str) -> None:
        """Let no adapter change the checkpoint's layer `name`: its rows are not in the checkpoint's order."""
        self._by_name.pop(name, None)

    def find(self, name: str) -> Site | None:
        """Return where the checkpoint's layer `name` went; None: no such layer, or not one that can be changed."""
        return self._by_name.get(name)
