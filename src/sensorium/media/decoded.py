"""What decoding gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Video:
    """The frames taken of a video, and what is known of the whole.

    `frames`: (n, height, width, 3) uint8 RGB, upright. `times_s`: (n,) seconds of each from the video's first frame.
    `indices`: (n,) their numbers among the video's `num_source_frames`. `source_fps` is 0 where the video has but
    one frame. `source_size`: (height, width) before shrinking.
    """

    frames: npt.NDArray[np.uint8]
    times_s: tuple[float, ...]
    indices: tuple[int, ...]
    source_fps: float
    duration_s: float
    num_source_frames: int
    source_size: tuple[int, int]


@dataclass(frozen=True)
class Audio:
    """`samples`: (num_samples,) float32, mono, `rate` of them to a second; `source_rate` is the file's own."""

    samples: npt.NDArray[np.float32]
    rate: int
    source_rate: int
