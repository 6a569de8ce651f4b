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
        most = self._max_model_len if bounded else max(self._max_model_len, _MOST_COUNTED)
        least = self._least(text, most) if len(text) > _LONG * most else 0
        if least <= most:
            return
        if not bounded:
            raise ContextLengthExceeded(
                f"Texts of at most {most} tokens are tokenized; this one has more than {least}. Send it in parts.",
                param=param,
            )
        raise ContextLengthExceeded(
            f"This model's maximum context length is {most} tokens; the prompt has more than {least}. "
            "Shorten the prompt, or raise --max-model-len.",
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
