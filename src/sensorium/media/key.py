"""The name under which a media item's encoder output is kept."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from sensorium.types import MediaItem

_options = msgspec.json.Encoder(order="deterministic")


def media_key(item: MediaItem, salt: str, fingerprint: bytes, options: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that are equal only for items the encoder cannot tell apart.

    Made from the bytes before they are decoded, so a hit costs no decoding. Every part is preceded by its
    length, so no two different lists of parts read the same.

    Args:
        salt: the request's cache salt; different salts never share.
        fingerprint: of the image processor.
        options: the processor's options for this request (min_pixels, max_pixels).
    """
    size = b"" if item.size is None else b"%d,%d" % item.size
    digest = blake2b(digest_size=16)
    for part in (
        salt.encode("utf-8", "surrogatepass"),
        fingerprint,
        _options.encode(options),
        item.kind.encode(),
        size,
    ):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    digest.update(item.data)
    return digest.digest()
