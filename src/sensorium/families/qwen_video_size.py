"""How big the frames of a video become for the Qwen vision towers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sensorium.families.qwen_image import smart_resize

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class FrameLimits:
    """Qwen2-VL and Qwen2.5-VL: every frame has low..high pixels.

    `video_tokens`: where the checkpoint asks for the cap, frames also share nine tenths of as many tokens' pixels,
    but none gets less than a little over `low`. 0: no cap.

    Source: transformers `models/qwen2_vl/video_processing_qwen2_vl.py`.
    """

    low: int
    high: int
    video_tokens: int = 0

    def size(self, num_frames: int, height: int, width: int, factor: int, group: int) -> Size:
        """Return the size of `num_frames` frames whose sides are multiples of `factor`; the tower sees `group` as one.

        Raises:
            ValueError: the aspect ratio is over 200.
        """
        high = self.high
        if self.video_tokens:
            share = int(self.video_tokens * factor**2 * 0.9) * group // num_frames
            high = max(min(high, share), int(self.low * 1.05))
        return smart_resize(height, width, factor, self.low, high)


@dataclass(frozen=True)
class VideoLimits:
    """Qwen3-VL: the frames of a video together have low..high pixels.

    `frame_tokens`: where the checkpoint asks for the cap, a frame has at most as many tokens' pixels. 0: no cap.

    Source: transformers `models/qwen3_vl/video_processing_qwen3_vl.py`.
    """

    low: int
    high: int
    frame_tokens: int = 0

    def size(self, num_frames: int, height: int, width: int, factor: int, group: int) -> Size:
        """See `FrameLimits.size`."""
        num_frames = max(num_frames, group)  # where there are fewer, the last one is repeated
        high = self.high
        if self.frame_tokens:
            share = min(self.frame_tokens * factor**2, high // num_frames)
            high = max(share, int(self.low * 1.05)) * num_frames
        if min(height, width) < factor:
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        return _smart_resize(num_frames, height, width, factor, group, self.low, high)


def _smart_resize(num_frames: int, height: int, width: int, factor: int, group: int, low: int, high: int) -> Size:
    """`smart_resize` of a picture, with bounds on the pixels of all frames instead of one."""
    new_height, new_width = smart_resize(height, width, factor, 1, 1 << 62)
    volume = round(num_frames / group) * group * new_height * new_width
    if volume > high:
        shrink = math.sqrt(num_frames * height * width / high)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif volume < low:
        grow = math.sqrt(low / (num_frames * height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width
