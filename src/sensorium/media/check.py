"""The limits on a picture's size, and what says that a picture is over one. Shared by parent and child."""

from __future__ import annotations


class Rejected(Exception):
    """The picture is not accepted; `reason` is a predicate that follows "the image"."""

    def __init__(self, reason: str, code: str = "media_invalid") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


def check_size(height: int, width: int, max_pixels: int, max_aspect_ratio: int) -> None:
    """Raise Rejected where a picture of this size is over a limit."""
    if height < 1 or width < 1:
        raise Rejected(f"is {width}x{height}: it has no pixels")
    if height * width > max_pixels:
        raise Rejected(
            f"is {width}x{height} = {height * width / 1e6:.1f} megapixels; the limit is {max_pixels / 1e6:.1f}. "
            "Send a smaller picture or raise --max-image-pixels",
            "media_too_large",
        )
    if max(height, width) > max_aspect_ratio * min(height, width):
        raise Rejected(
            f"is {width}x{height}: its longer side is more than {max_aspect_ratio} times the shorter. Crop or pad it"
        )
