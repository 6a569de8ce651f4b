"""Texts that cannot fit are refused before they are tokenized whole.

Tokenizing takes about 130 bytes of memory and half a microsecond for every character: a request of 60 MB would take
the worker's memory and many seconds to be told that it is too long.
"""

from __future__ import annotations

from sensorium.errors import ContextLengthExceeded
from sensorium.prompt.tokenizer import Tokenizer

_PIECE = 1 << 16  # characters that are looked at together
_LONG = 16  # characters a token: few texts have more, so all that are shorter are tokenized whole, once
_SEAM = 64  # more tokens than cutting a text in one place can add
_MOST_COUNTED = 1 << 19  # tokens that are counted for whoever only wants to know, if the context is not longer


class Room:
    """How much text a model takes."""

    def __init__(self, tokenizer: Tokenizer, max_model_len: int) -> None:
        self._tokenizer, self._max_model_len = tokenizer, max_model_len

    def check(self, text: str, param: str, *, bounded: bool = True) -> None:
        """See that `text` may fit; if it is only a little too long, the number of its tokens will tell.

        Args:
            bounded: it is to be answered; otherwise its tokens are only to be counted.

        Raises:
            ContextLengthExceeded: it has more tokens than there is room for.
        """
        if bounded:
            least = self._least(text, self._max_model_len) if len(text) > _LONG * self._max_model_len else 0
            if least > self._max_model_len:
                raise self._too_long(f"more than {least}", param)
            return
        most = max(self._max_model_len, _MOST_COUNTED)
        least = self._least(text, most) if len(text) > most else 0
        if least > most:
            raise ContextLengthExceeded(
                f"Texts of at most {most} tokens are tokenized; this one has more than {least}. Send it in parts.",
                param=param,
            )

    def check_count(self, count: int, param: str, instead: str = "") -> None:
        """See that a prompt of `count` tokens leaves room for an answer; `instead` says what else makes it shorter.

        Raises:
            ContextLengthExceeded: it does not.
        """
        if count >= self._max_model_len:
            raise self._too_long(str(count), param, instead)

    def _too_long(self, count: str, param: str, instead: str = "") -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"This model's maximum context length is {self._max_model_len} tokens; the prompt has {count}, which "
            f"leaves no room for an answer. Shorten the prompt, {instead}or raise --max-model-len.",
            param=param,
        )

    def _least(self, text: str, most: int) -> int:
        """Tokens that `text` has at least; not more of it is counted than shows that it has too many."""
        count = 0
        for start in range(0, len(text), _PIECE):
            count += max(0, len(self._tokenizer.encode(text[start : start + _PIECE])) - _SEAM)
            if count > most:
                break
        return count
