"""The name under which a media item's encoder output is kept."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from sensorium.media.sampling import Sampling
from sensorium.types import MediaItem

_options = msgspec.json.Encoder(order="deterministic")


def media_key(
    item: MediaItem, salt: str, fingerprint: bytes, options: Mapping[str, Any], sampling: Sampling | None = None
) -> bytes:
    """Return 16 bytes that are equal only for items the encoder cannot tell apart.

    Made from the bytes before they are decoded, so a hit costs no decoding. Every part is preceded by its
    length, so no two different lists of parts read the same.

    Args:
        salt: the request's cache salt; different salts never share.
        fingerprint: of the image processor.
        options: the processor's options for this request (min_pixels, max_pixels), and whatever else decoding
            depends on (the most pixels of a frame, the sampling rate of a sound).
        sampling: how a video is sampled; its key cannot be made without.
    """
    if item.kind == "video" and sampling is None:
        raise ValueError("the key of a video needs its sampling")
    size = b"" if item.size is None else b"%d,%d" % item.size
    cut = (item.options.start, item.options.end)
    shape = (sampling, cut, item.times, item.rate, [len(frame) for frame in item.frames])
    digest = blake2b(digest_size=16)
    for part in (
        salt.encode("utf-8", "surrogatepass"),
        fingerprint,
        _options.encode(options),
        item.kind.encode(),
        size,
        _options.encode(shape),
    ):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    for frame in item.frames:  # their lengths are among the parts above
        digest.update(frame)
    digest.update(item.data)
    return digest.digest()
