"""The limits on a picture's size, and what says that an item is over one. Shared by parent and child."""

from __future__ import annotations

import math


class Rejected(Exception):
    """The item is not accepted; `reason` is a predicate that follows "the image", "the video" or "the audio"."""

    def __init__(self, reason: str, code: str = "media_invalid") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


def check_size(
    height: int, width: int, max_pixels: int, max_aspect_ratio: int, option: str = "--max-image-pixels"
) -> None:
    """Raise Rejected where a picture of this size is over a limit; `option` is the one that raises it."""
    if height < 1 or width < 1:
        raise Rejected(f"is {width}x{height}: it has no pixels")
    if height * width > max_pixels:
        raise Rejected(
            f"is {width}x{height} = {height * width / 1e6:.1f} megapixels; the limit is {max_pixels / 1e6:.1f}. "
            f"Send a smaller picture or raise {option}",
            "media_too_large",
        )
    if max(height, width) > max_aspect_ratio * min(height, width):
        raise Rejected(
            f"is {width}x{height}: its longer side is more than {max_aspect_ratio} times the shorter. Crop or pad it"
        )


def fit(height: int, width: int, max_pixels: int | None) -> tuple[int, int]:
    """Return the largest (height, width) of the same shape that has at most `max_pixels`; never larger than given."""
    if max_pixels is None or height * width <= max_pixels:
        return height, width
    scale = math.sqrt(max_pixels / (height * width))
    small, large = max(1, math.floor(min(height, width) * scale)), math.floor(max(height, width) * scale)
    large = max(1, min(large, max_pixels // small))
    return (small, large) if height <= width else (large, small)
