"""Where the patches of a batch of images lie: rotary coordinates, attention runs, windows, position table.

Patches come in merge order: the patches that become one token are neighbours, tokens row by row. All here is
index arithmetic on the CPU, done once per batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

Grid = tuple[int, int, int]  # frames, rows, columns, in patches
Run = tuple[int, int]  # (count, length): `count` neighbouring segments of `length` patches each
Ints = npt.NDArray[np.int64]


def patch_coordinates(grids: Sequence[Grid], merge: int) -> Ints:
    """Return (num_patches, 2) int64: row and column of every patch, counted within its frame."""
    parts = []
    for frames, height, width in grids:
        places = np.indices((height, width)).reshape(2, height // merge, merge, width // merge, merge)
        frame = places.transpose(1, 3, 2, 4, 0).reshape(-1, 2)
        parts.append(np.tile(frame, (frames, 1)))
    return np.concatenate(parts)


def frame_runs(grids: Sequence[Grid]) -> list[Run]:
    """Return the runs of equally long frames: every frame attends to itself only."""
    lengths = [height * width for frames, height, width in grids for _ in range(frames)]
    return runs(lengths)


def runs(lengths: Sequence[int]) -> list[Run]:
    """Join equal neighbours: [4, 4, 2] -> [(2, 4), (1, 2)]."""
    return [(len(list(group)), length) for length, group in groupby(lengths)]


def windows(grids: Sequence[Grid], merge: int, window: int) -> tuple[Ints, list[Run]]:
    """Cut every frame into windows of `window` x `window` tokens; those at the right and lower edge may be smaller.

    Returns:
        The order in which to lay the batch's tokens so that each window is one piece and windows of one size are
        neighbours, (num_tokens,) int64; and the runs, in patches.

    Source: Qwen2.5-VL, arXiv:2502.13923, section 2.1.1; transformers `get_vision_window_index` (there windows are
    not sorted by size, which changes no result).
    """
    ids, start = [], 0
    for frames, height, width in grids:
        row, column = np.indices((height // merge, width // merge)) // window
        num_columns = column.max() + 1
        frame = (row * num_columns + column).reshape(-1)
        num_windows = frame.max() + 1
        ids.append((start + num_windows * np.arange(frames)[:, None] + frame).reshape(-1))
        start += num_windows * frames
    window_of = np.concatenate(ids)  # (num_tokens,)
    sizes = np.bincount(window_of)  # (num_windows,)
    order = np.lexsort((window_of, -sizes[window_of]))
    return order, runs((np.sort(sizes)[::-1] * merge**2).tolist())


def interpolate(coordinates: Ints, grids: Sequence[Grid], side: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Spread a learned (side, side) table of positions over each frame, its corners on the frame's corners.

    Returns:
        For every patch the four nearest rows of the flattened table, (num_patches, 4) int64, and their weights,
        (num_patches, 4) float32, computed in float32 as the reference does.

    Source: transformers 5.23 `get_vision_interpolation_indices_and_weights` (bilinear, align_corners).
    """
    counts = [frames * height * width for frames, height, width in grids]
    sizes = np.repeat(np.array([grid[1:] for grid in grids], np.float32), counts, axis=0)  # (num_patches, 2)
    place = coordinates.astype(np.float32) * np.float32(side - 1) / np.maximum(sizes - 1, np.float32(1))
    low = np.floor(place)
    distance = place - low
    taps = np.minimum(np.stack((low, low + 1), -1).astype(np.int64), side - 1)  # (num_patches, axis, 2)
    shares = np.stack((1 - distance, distance), -1)  # (num_patches, axis, 2)
    indices = taps[:, 0, :, None] * side + taps[:, 1, None, :]  # (num_patches, 2, 2)
    weights = shares[:, 0, :, None] * shares[:, 1, None, :]
    return indices.reshape(-1, 4), weights.reshape(-1, 4).astype(np.float32, copy=False)
