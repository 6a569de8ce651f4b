"""Keeps count of an answer: what it took, what each choice said, whether it is complete."""

from __future__ import annotations

from sensorium.errors import ModelUnavailable, WorkerDied
from sensorium.protocol.usage import Usage, prompt_details
from sensorium.types import Delta, Event, FinishReason, MediaUse, PositionLogprobs, Started


class ChoiceSoFar:
    """What one choice has said so far."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.positions: list[PositionLogprobs] = []
        self.offset = 0  # characters of the tokens whose log probabilities were streamed
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None

    def add(self, delta: Delta) -> None:
        """Fold `delta` in."""
        self.texts.append(delta.text)
        self.positions.extend(delta.logprobs)
        if delta.finish_reason is not None:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason


class Tally:
    """What `num_prompts` prompts with `n` choices each took so far.

    Choice `index` belongs to prompt `index // n`.
    """

    def __init__(self, n: int, num_prompts: int = 1) -> None:
        self.n = n
        self.unfinished = n * num_prompts
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._cached = [0] * num_prompts
        self._media: list[MediaUse] = []

    def add(self, event: Event) -> None:
        """Count `event`.

        Raises:
            ModelUnavailable: the server gave the answer up.
        """
        if isinstance(event, Started):
            self.prompt_tokens += event.num_prompt_tokens
            self._media += event.media
            return
        self.completion_tokens += len(event.token_ids) or event.num_tokens
        self.prompt_tokens += event.num_prompt_tokens
        if event.num_cached_tokens:
            prompt = event.index // self.n
            self._cached[prompt] = max(self._cached[prompt], event.num_cached_tokens)
        if event.finish_reason is not None:
            self.unfinished -= 1
            if event.finish_reason == "abort":
                raise ModelUnavailable("The server gave this answer up before it was finished; send the request again.")

    def check_complete(self) -> None:
        """Make sure that no choice was left open when the events ended."""
        if self.unfinished:
            raise WorkerDied("The model's process ended before the answer was finished; send the request again.")

    def usage(self, itemised: bool = True) -> Usage:
        """Return the counts in OpenAI's form; `itemised`: with a list of the media items."""
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            self.prompt_tokens + self.completion_tokens,
            prompt_details(sum(self._cached), self._media, itemised),
        )
