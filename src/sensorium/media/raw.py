"""Items that the caller had decoded: their numbers are checked, and nothing else is to do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensorium.media.check import Rejected, check_size
from sensorium.media.decoded import Video
from sensorium.media.sampling import Sampling, even_times, thin
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem


def raw_picture(item: MediaItem, limits: MediaLimits) -> npt.NDArray[np.uint8]:
    """Return (height, width, 3) RGB; a copy, because callers may write to it.

    Raises:
        Rejected: over a limit, or not as many bytes as its size says.
    """
    height, width = item.size or (0, 0)
    check_size(height, width, limits.max_pixels, limits.max_aspect_ratio)
    if len(item.data) != height * width * 3:
        raise Rejected(f"is {width}x{height} RGB, which is {height * width * 3} bytes, and {len(item.data)} came")
    return np.frombuffer(item.data, dtype=np.uint8).reshape(height, width, 3).copy()


def raw_video(item: MediaItem, sampling: Sampling, limits: MediaLimits) -> Video:
    """Return the frames, thinned where there are more than `sampling` allows.

    Raises:
        Rejected: over a limit, or not a whole number of frames.
    """
    height, width = item.size or (0, 0)
    check_size(height, width, limits.max_frame_pixels, limits.max_aspect_ratio, "--max-frame-pixels")
    total, rest = divmod(len(item.data), height * width * 3)
    if rest or not total:
        raise Rejected(f"has frames of {width}x{height} RGB, and {len(item.data)} bytes, which is no number of them")
    if item.times and len(item.times) != total:
        raise Rejected(f"has {total} frames and the times of {len(item.times)}")
    indices = thin(total, sampling)
    if len(indices) * height * width > limits.max_video_pixels:
        raise Rejected(
            f"gives {len(indices)} frames of {width}x{height}, over the limit of {limits.max_video_pixels / 1e6:.0f} "
            "megapixels; give fewer or smaller ones",
            "media_too_large",
        )
    frames = np.frombuffer(item.data, dtype=np.uint8).reshape(total, height, width, 3)[indices]
    times = item.times or tuple(even_times(total, sampling.fps or 1.0))
    span = times[-1] - times[0]
    fps = (total - 1) / span if span > 0 else 0.0
    seconds = tuple(times[index] for index in indices)
    return Video(frames, seconds, tuple(indices), fps, span + (1 / fps if fps else 0.0), total, (height, width))


def raw_sound(item: MediaItem, rate: int, max_seconds: float) -> npt.NDArray[np.float32]:
    """Return (num_samples,) samples that already have the wanted rate.

    Raises:
        Rejected: longer than allowed, empty, or not finite.
    """
    if not item.data or len(item.data) % 4:
        raise Rejected(f"has {len(item.data)} bytes, which is no number of float32 samples above 0")
    samples = np.frombuffer(item.data, dtype="<f4").copy()
    if len(samples) > max_seconds * rate:
        raise Rejected(f"is {len(samples) / rate:.1f} s long; the limit is {max_seconds:g} s", "media_too_large")
    if not np.isfinite(samples).all():
        raise Rejected("holds samples that are not finite numbers")
    return samples
