"""Which frames of a video a model sees: one rule for all families. Pure, and equal input gives equal frames.

1. Cut: the frames whose time lies in [start, end].
2. Count: `num_frames` where it is given, else the cut's length in seconds times `fps`; never under `min_frames`
   (of a count from `fps`), never over `max_frames` or the frames there are, and a whole multiple of `multiple`.
3. Spread: evenly over the cut, in one of the three ways in which the families were trained.

What others do, and where this differs:
* qwen-vl-utils (`smart_nframes`, then linspace and round) and transformers' Qwen3-VL: the same frames, with
  multiple=2 and multiple=1. Where they raise for a clip of fewer frames than `multiple`, this takes what is there.
* transformers' Qwen2-VL: the same count; its frames are those of spread="starts".
* transformers' InternVL, and MiniCPM-V's own script: spread="middles".
* vLLM's loader and SmolVLM cut the fraction off where spread="ends" rounds: at most one frame earlier.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sensorium.media.check import Rejected

_SLACK_S = 0.0005  # containers count in milliseconds: a frame at 1.0 s may say 0.9995


@dataclass(frozen=True)
class Sampling:
    """How many frames, of which part, and how they are spread.

    `fps` counts where `num_frames` is None. `start` and `end` are seconds from the first frame. `spread`: "ends"
    includes the first and the last frame, "starts" takes the first and "middles" the middle frame of equal parts.
    """

    fps: float | None = 2.0
    num_frames: int | None = None
    min_frames: int = 4
    max_frames: int = 768
    multiple: int = 2
    spread: Literal["ends", "starts", "middles"] = "ends"
    start: float | None = None
    end: float | None = None


def sample(times: Sequence[float], source_fps: float, sampling: Sampling) -> list[int]:
    """Return the indices of the frames to decode, ascending and without repeats; at least one.

    Args:
        times: (total,) seconds of every frame from the first one, ascending.
        source_fps: frames per second of the source; with a variable rate, the mean.

    Raises:
        Rejected: no frame lies between start and end.
    """
    first, last = _cut(times, sampling)
    total = last - first + 1
    count = num_frames(total, source_fps, sampling)
    return [first + index for index in _spread(count, total, sampling.spread)]


def num_frames(total: int, source_fps: float, sampling: Sampling) -> int:
    """Return how many of `total` frames are taken; 1 at least."""
    multiple = sampling.multiple
    most = min(sampling.max_frames, total)
    wanted: float
    if sampling.num_frames is not None:
        wanted = round(sampling.num_frames / multiple) * multiple
    elif sampling.fps is not None and source_fps > 0:
        lowest = math.ceil(sampling.min_frames / multiple) * multiple
        wanted = max(total / source_fps * sampling.fps, lowest)
    else:
        wanted = most
    count = math.floor(min(wanted, most) / multiple) * multiple
    return max(count, min(multiple, most), 1)


def even_times(total: int, fps: float) -> list[float]:
    """Return the times of `total` frames at a constant rate."""
    return [index / fps for index in range(total)]


def thin(total: int, sampling: Sampling) -> list[int]:
    """Return which frames of a list to keep: all, unless a count or a maximum says fewer.

    Such frames were chosen by whoever sent them, so neither `fps` nor `multiple` drops any; `fps` says how far
    apart in time they are.
    """
    count = min(total, sampling.max_frames, sampling.num_frames or total)
    return list(range(total)) if count == total else _spread(count, total, sampling.spread)


def _cut(times: Sequence[float], sampling: Sampling) -> tuple[int, int]:
    """Index of the first and the last frame between start and end."""
    first = 0 if sampling.start is None else bisect_left(times, sampling.start - _SLACK_S)
    last = len(times) - 1 if sampling.end is None else bisect_right(times, sampling.end + _SLACK_S) - 1
    if first > last:
        start, end = sampling.start or 0.0, sampling.end
        until = "its end" if end is None else f"{end:g} s"
        length = f"its last frame is at {times[-1]:.2f} s" if times else "it has no frames"
        raise Rejected(f"has no frame between {start:g} s and {until}; {length}")
    return first, last


def _spread(count: int, total: int, spread: str) -> list[int]:
    if spread == "starts":
        return [index * total // count for index in range(count)]
    if spread == "middles":
        return [(2 * index + 1) * total // (2 * count) for index in range(count)]
    if count == 1:
        return [0]
    step = (total - 1) / (count - 1)  # as numpy's linspace computes it, so that halves are rounded alike
    return [*(round(index * step) for index in range(count - 1)), total - 1]
