"""What one sequence shows: its text up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from sensorium.output.detokenizer import Detokenizer
from sensorium.output.stops import StopMatcher
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import SamplingParams


class ChoiceOutput:
    """The text of one choice, token by token.

    Tokens that end the sequence (eos, `stop_token_ids`) are not pushed, unless their text is to be shown. Once
    `stop_hit` is set nothing more comes out. Stop strings count only in what comes after `min_tokens` tokens.
    `ends` are texts that end every answer of this model. `prompt_ids` stand before an answer that continues a text.
    Without `detokenize` texts are looked for, and not shown.

    Attributes:
        stop_hit: the stop string that ended the text.
    """

    __slots__ = ("_flush", "_min_tokens", "_push", "_shows", "_stops", "stop_hit")

    def __init__(
        self, tokenizer: Tokenizer, sampling: SamplingParams, ends: Sequence[str] = (), prompt_ids: Sequence[int] = ()
    ) -> None:
        detokenizer = Detokenizer(tokenizer, skip_special_tokens=sampling.skip_special_tokens, prompt_ids=prompt_ids)
        stops = (*(sampling.stop or ()), *ends)
        self._push, self._flush = detokenizer.push, detokenizer.flush
        self._stops = StopMatcher(stops, sampling.include_stop_str_in_output) if stops else None
        self._min_tokens = sampling.min_tokens
        self._shows = sampling.detokenize
        self.stop_hit: str | None = None

    def push(self, token_id: int) -> str:
        """Return the text this token makes final; "" where it is held back."""
        if self.stop_hit is not None or (self._stops is None and not self._shows):
            return ""
        text = self._push(token_id)
        if self._stops is None:
            return text
        if self._min_tokens > 0:
            self._min_tokens -= 1
        elif text:
            text, self.stop_hit = self._stops.push(text)
        return text if self._shows else ""

    def finish(self) -> str:
        """Return the text still held back, now that the sequence has ended."""
        if self.stop_hit is not None:
            return ""
        text = self._flush()
        if self._stops is not None:
            text, self.stop_hit = self._stops.push(text) if text else ("", None)
            text += "" if self.stop_hit is not None else self._stops.flush()
        return text if self._shows else ""
