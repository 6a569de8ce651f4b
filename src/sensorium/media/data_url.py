"""`data:` URLs, read as tolerantly as the clients that write them need."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from sensorium.errors import MediaError

_WHITESPACE = b" \t\r\n\x0b\x0c"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_FRAME_LIST = re.compile(r"\s*data:\s*video/(jpeg|jpg|png|webp)\s*;\s*base64\s*,", re.IGNORECASE)
_BASE64 = re.compile(r";\s*base64\s*$", re.IGNORECASE)


def decode_data_url(url: str, max_bytes: int) -> bytes:
    """Return the bytes of a `data:` URL; its MIME label is ignored, since clients often have it wrong.

    Base64 may hold whitespace, lack its padding, use the URL-safe alphabet or be percent-encoded.

    Raises:
        MediaError: it has no comma, is not valid base64, is empty, or holds more than `max_bytes`.
    """
    label, comma, payload = url.partition(",")
    if not comma:
        raise MediaError("the data URL has no comma between its label and its data")
    data = decode_base64(payload, max_bytes) if _BASE64.search(label) else unquote_to_bytes(payload)
    if not data:
        raise MediaError("the data URL is empty")
    if len(data) > max_bytes:
        raise too_large(len(data), max_bytes)
    return data


def is_frame_list(url: str) -> bool:
    """Return whether `url` is a video whose frames are pictures: `data:video/jpeg;base64,FRAME,FRAME,...`."""
    return _FRAME_LIST.match(url[:64]) is not None


def decode_frame_list(url: str, max_bytes: int, max_total_bytes: int, max_frames: int) -> tuple[bytes, ...]:
    """Return the encoded frames of such a video.

    Args:
        max_bytes: of one frame.

    Raises:
        MediaError: too many frames or bytes, or one is not valid base64.
    """
    _, _, payload = url.partition(",")
    count = payload.count(",") + 1
    if count > max_frames:
        raise MediaError(f"it has {count} frames; the limit is {max_frames}. Send fewer", code="media_too_large")
    if len(payload) * 3 // 4 > max_total_bytes + 3 * count:
        raise too_large(len(payload) * 3 // 4, max_total_bytes)
    frames: list[bytes] = []
    for number, text in enumerate(payload.split(",")):
        try:
            frames.append(decode_base64(text, max_bytes))
        except MediaError as error:
            raise MediaError(f"frame {number}: {error.message}", code=error.code) from None
        if not frames[-1]:
            raise MediaError(f"frame {number} is empty")
    return tuple(frames)


def decode_base64(payload: str, max_bytes: int) -> bytes:
    """Return the bytes of base64 as tolerant as in a `data:` URL.

    Raises:
        MediaError: it is not valid base64, or holds more than `max_bytes`.
    """
    if not payload.isascii():
        raise MediaError("it is not valid base64: it contains characters outside ASCII")
    text = unquote_to_bytes(payload) if "%" in payload else payload.encode("ascii")
    if len(text) * 3 // 4 > max_bytes + 3:  # before anything as large is made
        text = text.translate(None, delete=_WHITESPACE)
        if len(text) * 3 // 4 > max_bytes + 3:
            raise too_large(len(text) * 3 // 4, max_bytes)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        pass
    text = text.translate(_URL_SAFE, delete=_WHITESPACE).rstrip(b"=")
    if len(text) % 4 == 1:
        raise MediaError(f"it is not valid base64: {len(text)} characters cannot be; it may have been cut")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise MediaError("it is not valid base64: it contains characters that base64 does not use") from None


def too_large(num_bytes: int, max_bytes: int) -> MediaError:
    """Return the error for an encoded file over the limit."""
    mib = 1 << 20
    return MediaError(
        f"it has {num_bytes / mib:.1f} MiB; the limit is {max_bytes / mib:.1f} MiB. Send a smaller file",
        code="media_too_large",
    )
