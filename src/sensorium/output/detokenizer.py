"""Token ids to text, one at a time: what comes out is final, and never half a character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from sensorium.prompt.byte_pieces import is_byte_token
from sensorium.prompt.tokenizer import Tokenizer

_PRIMING = 8  # prompt tokens that can still matter: the bytes of one unfinished character, or one word
_utf8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Text of one growing sequence. All pieces together equal `tokenizer.decode(ids)`.

    Args:
        tokenizer: the model's.
        skip_special_tokens: leave special tokens out of the text.
        prompt_ids: what stands before the sequence, if its text is to continue that of the prompt: then a
            SentencePiece word at the start keeps its leading blank.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool, prompt_ids: Sequence[int] = ()) -> None:
        decoder: _Decoder
        match tokenizer.decoder_kind.name:
            case "byte_level":
                decoder = _ByteLevel(tokenizer, skip_special_tokens)
            case "sentencepiece":
                decoder = _SentencePiece(tokenizer, skip_special_tokens)
            case _:
                decoder = _Window(tokenizer, skip_special_tokens)
        for token_id in prompt_ids[-_PRIMING:]:
            decoder.push(token_id)
        if prompt_ids:
            decoder.begin()
        # Bound once: `push` runs for every token of every sequence.
        self.push, self.flush = decoder.push, decoder.flush


class _Decoder(Protocol):
    def push(self, token_id: int, /) -> str:
        """Return new text that is final."""

    def flush(self) -> str:
        """Return what was held back; the sequence has ended."""

    def begin(self) -> None:
        """Forget what was held back, but for the bytes of an unfinished character: the prompt has ended."""


class _ByteLevel:
    """Bytes through an incremental UTF-8 decoder; bad bytes become U+FFFD, as in `decode`."""

    def __init__(self, tokenizer: Tokenizer, skip: bool) -> None:
        self._bytes = tokenizer.token_bytes
        self._skipped = tokenizer.special_ids if skip else frozenset[int]()
        self._decode = _utf8("replace").decode

    def push(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        return self._decode(self._bytes(token_id))

    def flush(self) -> str:
        return self._decode(b"", True)

    def begin(self) -> None:
        pass  # only unfinished characters are held back


class _SentencePiece:
    """Words with a mark for blanks, and raw bytes.

    A run of byte tokens is held until it ends, because `decode` shows it as text only if all of it is valid
    UTF-8, and otherwise as one U+FFFD per byte.
    """

    def __init__(self, tokenizer: Tokenizer, skip: bool) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip else frozenset[int]()
        self._run = bytearray()
        self._strip = tokenizer.decoder_kind.strip

    def push(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        token = self._tokenizer.token_string(token_id)
        if not token:  # not in the vocabulary: for `decode` it is not there at all
            return ""
        if is_byte_token(token):
            self._run += self._tokenizer.token_bytes(token_id)
            return ""
        return self._stripped(self._take_run() + self._tokenizer.token_bytes(token_id).decode())

    def flush(self) -> str:
        return self._stripped(self._take_run())

    def begin(self) -> None:
        unfinished = _utf8("replace")
        unfinished.decode(bytes(self._run))
        self._run = bytearray(unfinished.getstate()[0])
        self._strip = 0

    def _take_run(self) -> str:
        if not self._run:
            return ""
        run, self._run = self._run, bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(run)

    def _stripped(self, text: str) -> str:
        while self._strip and text:
            if text[0] != " ":
                self._strip = 0
                break
            text = text[1:]
            self._strip -= 1
        return text


class _Window:
    """Any other decoder: decode a short window of tokens again, and show what has been added."""

    def __init__(self, tokenizer: Tokenizer, skip: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip
        self._ids: list[int] = []
        self._shown = ""  # text of the window that has gone out

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids, self._skip)
        if text.endswith("\ufffd") or not text.startswith(self._shown):
            return ""
        new = text[len(self._shown) :]
        self._shown = text
        if len(self._ids) > 2 * _PRIMING:
            self._ids = self._ids[-_PRIMING:]
            self._shown = self._tokenizer.decode(self._ids, self._skip)
        return new

    def flush(self) -> str:
        text = self._tokenizer.decode(self._ids, self._skip)
        return text[len(self._shown) :] if text.startswith(self._shown) else ""

    def begin(self) -> None:
        pass  # the window's text has gone out
