"""What stands in the prompt for a media item, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

Grid = tuple[int, int, int]  # frames, rows, columns, in patches before merging
Run = tuple[int, int]  # (start, length) in tokens


@dataclass(frozen=True)
class Layout:
    """The tokens of one media item: slots, which encoder rows are written over, and maybe others around them.

    Attributes:
        grid: what `Family.positions` counts by; (0, 0, 0) where positions are plain.
        num_slots: rows the encoder gives.
        token_ids: all tokens of the item, slots included; empty: it is `num_slots` placeholders and nothing else.
        runs: where slots lie within the item, in order; they sum to `num_slots`.
        interval: positions on the time axis from one of the grid's frames to the next.
        times: of a video, seconds of the frames it was made of.
        size: pixels (height, width) that the picture, or each frame, was resized to as a whole; None: it was cut.
    """

    grid: Grid
    num_slots: int
    token_ids: tuple[int, ...] = ()
    runs: tuple[Run, ...] = ()
    interval: float = 1.0
    times: tuple[float, ...] = ()
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, token_ids: Sequence[int], slot_id: int, grid: Grid = (0, 0, 0)) -> Layout:
        """Make the layout of an item whose slots are the tokens with id `slot_id`."""
        runs: list[Run] = []
        start = 0
        for is_slot, group in groupby(token_ids, lambda token_id: token_id == slot_id):
            length = len(list(group))
            if is_slot:
                runs.append((start, length))
            start += length
        return cls(grid, sum(length for _, length in runs), tuple(token_ids), tuple(runs))

    @property
    def length(self) -> int:
        """Tokens in the prompt."""
        return len(self.token_ids) or self.num_slots

    def behind(self, token_ids: Sequence[int]) -> Layout:
        """Return the layout of the same item with `token_ids`, none of them slots, before its own tokens."""
        runs = tuple((start + len(token_ids), length) for start, length in self.runs)
        return replace(self, token_ids=(*token_ids, *self.token_ids), runs=runs)

    def slots(self, start: int, end: int) -> tuple[npt.NDArray[np.int64], slice]:
        """Return which of the item's tokens [start, end) are slots, and which encoder rows belong there."""
        runs = self.runs or ((0, self.num_slots),)
        where = [np.arange(max(start, first), min(end, first + length)) for first, length in runs]
        before_start, before_end = (
            sum(min(max(at - first, 0), length) for first, length in runs) for at in (start, end)
        )
        return np.concatenate(where), slice(before_start, before_end)


@dataclass(frozen=True)
class MediaSpan:
    """Where a media item's tokens lie in the prompt: token_ids[offset : offset + length]."""

    offset: int
    key: bytes  # 16 bytes: content, processor options and cache salt; equal keys mean equal embeddings and slots
    layout: Layout

    @property
    def length(self) -> int:
        """Tokens in the prompt, those that are not slots included."""
        return self.layout.length
