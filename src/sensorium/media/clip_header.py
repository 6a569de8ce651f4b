"""What the first bytes of a video or sound file say: which demuxer reads it, so that FFmpeg never guesses.

Guessing is how a text that lists other files or addresses (HLS, DASH, SDP, concat) gets opened as if it were a video.
"""

from __future__ import annotations

from typing import NamedTuple

from sensorium.media.check import Rejected
from sensorium.media.header import image_format, other_format

Bytes = bytes | bytearray


class ClipFormat(NamedTuple):
    """`name` is for people; `demuxer` is FFmpeg's name, or "" where FFmpeg is not the one to read it."""

    name: str
    demuxer: str


_MP4, _WAV = ClipFormat("MP4", "mov"), ClipFormat("WAV", "")
_TRANSPORT, _MP3, _AAC = ClipFormat("MPEG-TS", "mpegts"), ClipFormat("MP3", "mp3"), ClipFormat("AAC", "aac")
GIF, WEBP = ClipFormat("GIF", "gif"), ClipFormat("WebP", "")
_MAGIC = (
    (4, b"ftyp", _MP4),
    (4, b"moov", _MP4),
    (4, b"mdat", _MP4),
    (4, b"wide", _MP4),
    (0, b"\x1a\x45\xdf\xa3", ClipFormat("Matroska or WebM", "matroska")),
    (0, b"FLV\x01", ClipFormat("FLV", "flv")),
    (0, b"\0\0\x01\xba", ClipFormat("MPEG", "mpeg")),
    (0, b"OggS", ClipFormat("Ogg", "ogg")),
    (0, b"GIF8", GIF),
    (0, b"fLaC", ClipFormat("FLAC", "")),
    (0, b"ID3", _MP3),
    (0, b"#!AMR", ClipFormat("AMR", "amr")),
)
_RIFF = {b"AVI ": ClipFormat("AVI", "avi"), b"WAVE": _WAV, b"WEBP": WEBP}
_UNSIZED = 0x7FFFFFFF  # recorders that do not know the length of their data write 0, or this or more


def clip_format(data: Bytes) -> ClipFormat:
    """Return the format by magic bytes.

    Raises:
        Rejected: it is none that is read here.
    """
    head = bytes(data[:12])
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] in _RIFF:
        return _RIFF[head[8:]]
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return ClipFormat("AIFF", "")
    for offset, magic, found in _MAGIC:
        if head[offset:].startswith(magic):
            return found
    if head[:1] == b"\x47" and data[188:189] in (b"\x47", b""):
        return _TRANSPORT
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # the sync word of an MPEG audio frame
        return _AAC if head[1] & 0x06 == 0 else _MP3
    raise Rejected(_unknown(data))


def webp_times(data: Bytes) -> list[float]:
    """Return when each frame of an animated WebP begins, in seconds; nothing where it is not animated.

    Source: RFC 9649, section 2.7.1.1, without decoding anything.
    """
    times: list[float] = []
    at, now = 12, 0
    while at + 24 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"ANMF":
            times.append(now / 1000)
            now += int.from_bytes(data[at + 20 : at + 23], "little")
        at += 8 + length + length % 2
    return times


def missing_wav_bytes(data: Bytes) -> int:
    """Return how many bytes of samples a WAV file promises and lacks; 0 where it is whole or does not say."""
    if bytes(data[:4]) != b"RIFF":
        return 0
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return 0 if length == 0 or length >= _UNSIZED else max(0, at + 8 + length - len(data))
        at += 8 + length + length % 2
    return 0


def _unknown(data: Bytes) -> str:
    if not data:
        return "is empty"
    kinds = "is in no format read here (MP4, WebM, MKV, AVI, MPEG, FLV, GIF, animated WebP, WAV, MP3, FLAC, Ogg, AAC)"
    if picture := image_format(data):
        return f"is a {picture} picture; send it as image_url"
    other = other_format(data)
    return kinds + (f"; it looks like {other}" if other else "")
