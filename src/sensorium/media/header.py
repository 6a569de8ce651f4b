"""What the first bytes of a picture file say, and where a file that ends too early ends."""

from __future__ import annotations

from typing import Literal

Format = Literal["JPEG", "PNG", "GIF", "WebP", "BMP"]

_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = (
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftyp", "MP4"),
    (0, b"%PDF", "PDF"),
    (0, b"RIFF", "AVI or WAV"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"<svg", "SVG"),
    (0, b"<", "HTML or XML"),
    (0, b"{", "JSON"),
)


def image_format(data: bytes | bytearray) -> Format | None:
    """Return the format by magic bytes; None for anything that is not decoded here."""
    head = bytes(data[:12])
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(_PNG):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"BM"):
        return "BMP"
    return None


def other_format(data: bytes | bytearray) -> str | None:
    """Return the name of a well-known format that is not decoded here, for the error message."""
    head = bytes(data[:16]).lstrip()
    return next((name for offset, magic, name in _OTHERS if head[offset:].startswith(magic)), None)


def webp_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Return (height, width) of a WebP's canvas without a decoder, whose making would take the canvas's memory.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    kind, body = bytes(data[12:16]), bytes(data[20:30])
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return _little(body[7:10]) + 1, _little(body[4:7]) + 1
    if kind == b"VP8L":
        bits = _little(body[1:5])
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        return _little(body[8:10]) & 0x3FFF, _little(body[6:8]) & 0x3FFF
    return None


def missing_end(data: bytes | bytearray, kind: Format) -> str | None:
    """Say what a file lacks, where it ends before its own structure does; None where it is whole."""
    if kind == "PNG":
        return _missing_end_of_png(data)
    if kind == "JPEG" and not data.rstrip(b"\0\r\n").endswith(b"\xff\xd9"):  # a thumbnail has a marker too
        return f"it ends after {len(data)} bytes without an end-of-image marker"
    if kind == "GIF" and not data.endswith(b";"):
        return f"it ends after {len(data)} bytes without a trailer"
    declared = {"WebP": _little(data[4:8]) + 8, "BMP": _little(data[2:6])}.get(kind, 0)
    if declared > len(data):
        return f"its header promises {declared} bytes and {len(data)} are there"
    return None


def _missing_end_of_png(data: bytes | bytearray) -> str | None:
    at = len(_PNG)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if kind == b"IEND":
            return None
        if at + 12 + length > len(data):
            name = kind.decode("ascii") if kind.isalpha() else "unnamed"
            return f"its {name} chunk needs {length} bytes and {len(data) - at - 8} are there"
        at += 12 + length
    return f"it ends after {len(data)} bytes without an IEND chunk"


def _little(field: bytes | bytearray) -> int:
    return int.from_bytes(field, "little")
