"""Read a SentencePiece model file (`tokenizer.model`): the few fields of its protobuf message that encoding needs.

Source: `sentencepiece_model.proto` of google/sentencepiece, whose field numbers these are. Unknown fields are skipped,
as protobuf demands, so files of other versions stay readable.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from sensorium.errors import ConfigurationError

MARK = "▁"  # what SentencePiece writes for a blank
_KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


class PieceType(IntEnum):
    """What a piece is for; only the first and the fourth ever come out of plain text as they are."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4  # found in text before anything else is
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place."""

    text: str
    score: float = 0.0
    type: PieceType = PieceType.NORMAL


@dataclass(frozen=True)
class SentencePieceFile:
    """A model file's content.

    Attributes:
        pieces: the vocabulary, by id.
        kind: "bpe", "unigram", "word" or "char".
        byte_fallback: characters that are no piece become the pieces of their UTF-8 bytes.
        suffix: the mark stands behind words, not before them.
        ids: "unk", "bos", "eos", "pad" -> id; -1: there is none.
        charsmap: the compiled rules of the normaliser (NFKC, as a rule); empty: text stays as it is.
        add_dummy_prefix: a blank is put before the text.
        remove_extra_whitespaces: blanks at both ends go, and several in a row become one.
    """

    pieces: tuple[Piece, ...]
    kind: str
    byte_fallback: bool
    suffix: bool
    ids: dict[str, int]
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_sentencepiece(path: Path) -> SentencePieceFile:
    """Read a model file.

    Raises:
        ConfigurationError: it cannot be read, or is no SentencePiece model.
    """
    try:
        found = _read(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise ConfigurationError(f"{path} is not a SentencePiece model, or is cut short; download it again.") from error
    if not found.pieces:
        raise ConfigurationError(f"{path} is not a SentencePiece model, or is cut short; download it again.")
    return found


def _read(data: bytes) -> SentencePieceFile:
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(_bytes(value)))
            score = struct.unpack("<f", _bytes(piece.get(2, bytes(4))))[0]
            pieces.append(
                Piece(_bytes(piece[1]).decode() if 1 in piece else "", score, PieceType(_int(piece.get(3, 1))))
            )
        elif number == 2:
            trainer = dict(_fields(_bytes(value)))
        elif number == 3:
            normalizer = dict(_fields(_bytes(value)))
    defaults = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}
    return SentencePieceFile(
        pieces=tuple(pieces),
        kind=_KINDS[_int(trainer.get(3, 1))],
        byte_fallback=bool(trainer.get(35, 0)),
        suffix=bool(trainer.get(24, 0)),
        ids={name: _int(trainer.get(number, default)) for name, (number, default) in defaults.items()},
        charsmap=_bytes(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of one protobuf message: whole numbers, or the bytes of all else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            whole, at = _varint(data, at)
            yield number, whole
            continue
        if wire == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(wire, -1)
        if length < 0 or at + length > len(data):
            raise ValueError("not a protobuf message")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that starts at `at`, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("not a protobuf number")


def _int(value: int | bytes) -> int:
    """A whole number as int32 has it: -1 is written as 2**64 - 1."""
    if not isinstance(value, int):
        raise TypeError("a number was expected")
    return value - (1 << 64) if value >> 63 else value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("bytes were expected")
    return value
