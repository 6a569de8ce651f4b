"""What one token adds to the output, in bytes: byte-level BPE, SentencePiece with byte fallback, or neither.

Source: tokenizers' decoders `byte_level.rs`, `byte_fallback.rs`, `metaspace.rs`.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from tokenizers import Tokenizer as Backend

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class DecoderKind(NamedTuple):
    """How token strings become text.

    `name` is "byte_level"; "sentencepiece" (the mark U+2581 is a space, `<0x0A>` a byte, and `strip` spaces are
    dropped from the front of the whole text); or "other" (decode must see all tokens).
    """

    name: str
    strip: int = 0


def decoder_kind(backend: Backend) -> DecoderKind:
    """Recognise the decoder of `backend`."""
    if backend.decoder is None:
        return DecoderKind("other")
    state = json.loads(backend.decoder.__getstate__())
    steps: list[dict[str, Any]] = state["decoders"] if state["type"] == "Sequence" else [state]
    types = [step["type"] for step in steps]
    if types == ["ByteLevel"]:
        return DecoderKind("byte_level")
    replaces = types[:1] == ["Replace"] and steps[0]["pattern"] == {"String": "▁"} and steps[0]["content"] == " "
    if replaces and types[1:3] == ["ByteFallback", "Fuse"]:
        if len(steps) == 3:
            return DecoderKind("sentencepiece")
        last = steps[3]
        if len(steps) == 4 and last["type"] == "Strip" and last["content"] == " " and last["stop"] == 0:
            return DecoderKind("sentencepiece", int(last["start"]))
    return DecoderKind("other")


def _byte_of_character() -> dict[str, int]:
    # GPT-2 writes printable Latin-1 bytes as themselves and moves the other 68 to U+0100 and up.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(moved)}


BYTE_OF_CHARACTER = _byte_of_character()


def piece_bytes(token: str, kind: DecoderKind) -> bytes:
    """Return the bytes `token` stands for."""
    if kind.name == "byte_level":
        try:
            return bytes([BYTE_OF_CHARACTER[character] for character in token])
        except KeyError:  # an added token, whose text is written as it is
            return token.encode()
    token = token.replace("▁", " ")
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.encode()


def is_byte_token(token: str) -> bool:
    """Tell whether a SentencePiece token is a single raw byte."""
    return _BYTE_TOKEN.fullmatch(token) is not None
