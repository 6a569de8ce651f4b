"""Media strings without a scheme: base64 alone, or a path of this machine. swift's and rtp-llm's clients send both.

The first bytes decide: what decodes to the beginning of a known format is base64, though a JPEG's begins with "/9j/".
Whether a file exists is asked only below the folder the operator named, so nobody can probe other places.
"""

from __future__ import annotations

import base64
import binascii
import os

from sensorium.errors import MediaError
from sensorium.media.check import Rejected
from sensorium.media.clip_header import clip_format
from sensorium.media.data_url import decode_base64
from sensorium.media.header import image_format
from sensorium.media.local_file import read_file

_MAX_PATH_CHARS = 4096
_HEAD = 256  # characters; the longest signature looked at is the second sync byte of MPEG-TS, at 188
_SPACE = str.maketrans("", "", " \t\r\n")
_URL_SAFE = str.maketrans("-_", "+/")


def is_path(text: str) -> bool:
    """Whether `text` is meant as a path, and not as base64."""
    if not 0 < len(text) <= _MAX_PATH_CHARS or "\n" in text:
        return False
    if "." in text:  # not in base64's alphabet
        return True
    return text.startswith(("/", "~")) and not _begins_media(text)


def read_path(text: str, allowed_folder: str | None, max_bytes: int) -> bytes:
    """Return the bytes of the file at a path; one that is not absolute is below `allowed_folder`.

    Raises:
        MediaError: it is not below that folder, or cannot be read.
    """
    absolute = text if text.startswith("/") or allowed_folder is None else os.path.join(allowed_folder, text)
    return read_file(os.fsencode(absolute), allowed_folder, max_bytes)


def read_base64(text: str, max_bytes: int) -> bytes:
    """Return the bytes that `text` encodes.

    Raises:
        MediaError: it is not base64 of a picture, video or sound, or holds more than `max_bytes`.
    """
    if text and not _begins_media(text):
        raise MediaError(
            f"{text[:40]!r} is no http(s), data or file URL, no path (/..., or with a file's ending), and not the "
            "beginning of a picture, video or sound in base64"
        )
    return decode_base64(text, max_bytes)


def _begins_media(text: str) -> bool:
    """Whether `text` is base64 of something that begins like a picture, video or sound."""
    head = text[:_HEAD].translate(_SPACE).translate(_URL_SAFE).rstrip("=")
    try:
        data = base64.b64decode(head[: len(head) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return False
    if image_format(data) is not None:
        return True
    try:
        clip_format(data)
    except Rejected:
        return False
    return True
