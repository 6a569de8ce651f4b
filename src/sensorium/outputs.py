"""What the offline API returns. Names and fields are vLLM's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sensorium.types import Delta, Event, FinishReason, MediaUse, Started, TokenLogprob


@dataclass
class Logprob:
    """Log probability of one token at one position; `rank` is 1 for the likeliest."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    """One answer. `logprobs` has a dict per token: token id -> Logprob."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None

    def finished(self) -> bool:
        """Whether it has its end."""
        return self.finish_reason is not None


@dataclass
class PlaceholderRange:
    """The prompt tokens of one media item: prompt_token_ids[offset : offset + length]."""

    offset: int
    length: int


@dataclass
class RequestOutput:
    """A prompt and its answers. `media`, which is ours, tells what became of each media item, in the prompt's order."""

    request_id: str
    prompt: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    num_cached_tokens: int = 0
    multi_modal_placeholders: dict[str, list[PlaceholderRange]] = field(default_factory=dict)  # by kind
    media: tuple[MediaUse, ...] = ()


def fold(request_id: str, events: Iterable[Event]) -> RequestOutput:
    """Put the events of one request together."""
    output = RequestOutput(request_id, "", [], [], False)
    choices: dict[int, CompletionOutput] = {}
    for event in events:
        if isinstance(event, Started):
            output.prompt, output.prompt_token_ids, output.media = event.prompt, event.prompt_token_ids, event.media
            output.multi_modal_placeholders = _placeholders(event.media)
        else:
            output.num_cached_tokens = max(output.num_cached_tokens, event.num_cached_tokens)
            _add(choices.setdefault(event.index, CompletionOutput(event.index)), event)
    output.outputs = [choices[index] for index in sorted(choices)]
    output.finished = all(choice.finished() for choice in output.outputs)
    return output


def _placeholders(media: Iterable[MediaUse]) -> dict[str, list[PlaceholderRange]]:
    found: dict[str, list[PlaceholderRange]] = {}
    for use in media:
        if use.offset is not None and use.num_tokens is not None:
            found.setdefault(use.kind, []).append(PlaceholderRange(use.offset, use.num_tokens))
    return found


def _add(choice: CompletionOutput, delta: Delta) -> None:
    choice.text += delta.text
    choice.token_ids += delta.token_ids
    for position in delta.logprobs:
        if choice.logprobs is None:
            choice.logprobs, choice.cumulative_logprob = [], 0.0
        entries: list[TokenLogprob] = [position.chosen, *position.top]
        choice.logprobs.append(
            {entry.token_id: Logprob(entry.logprob, entry.rank or None, entry.token) for entry in reversed(entries)}
        )
        choice.cumulative_logprob = (choice.cumulative_logprob or 0.0) + position.chosen.logprob
    if delta.finish_reason is not None:
        choice.finish_reason, choice.stop_reason = delta.finish_reason, delta.stop_reason
