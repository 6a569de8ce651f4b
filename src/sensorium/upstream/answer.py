"""An upstream's chunks -> events. One `Answer` reads one stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sensorium.errors import UpstreamFailed
from sensorium.types import (
    Delta,
    Event,
    FinishReason,
    MediaUse,
    PositionLogprobs,
    Request,
    Started,
    TokenLogprob,
)
from sensorium.upstream.failures import LOST

# Others, such as content_filter, mean that the text ends there: "stop", with `stop_reason` saying which it was.
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}
_THINK, _THOUGHT = "<think>\n", "\n</think>\n\n"


class Answer:
    """Reads the chunks of one stream.

    Args:
        who: the upstream, for messages.
        media: what is known of the request's media.
        copies: choices that all are the one that the upstream writes.
    """

    def __init__(self, request: Request, who: str, media: tuple[MediaUse, ...] = (), copies: int = 1) -> None:
        self._id, self._who, self._media, self._copies = request.id, who, media, copies
        self._wanted, self._detokenize = request.sampling.n // copies, request.sampling.detokenize
        self._prompt = request.prompt if isinstance(request.prompt, str) else ""
        self._num_logprobs = request.sampling.logprobs or 0
        self._started = False
        self._num_prompt = 0  # as told with Started
        self._usage: Mapping[str, Any] = {}
        self._told = 0  # completion tokens
        self._open = set(range(self._wanted))
        self._thinking: set[int] = set()
        self._last: Delta | None = None  # with the last finish reason: usage may come behind it

    def read(self, chunk: Mapping[str, Any]) -> list[Event]:
        """Return what a chunk says.

        Raises:
            UpstreamFailed: it is no chunk of such an answer.
        """
        usage, choices = chunk.get("usage"), chunk.get("choices")
        if isinstance(usage, Mapping):
            self._usage = usage
        if not isinstance(choices, list):
            raise UpstreamFailed(f"{self._who} sent something that is no piece of an answer.")
        events: list[Event] = []
        for choice in choices:
            if not self._started:
                events.append(self._start(chunk, choice))
            events += self._delta(choice)
        return events

    def end(self) -> list[Event]:
        """Return what was held back until the stream's end.

        Raises:
            UpstreamFailed: the answer is not complete.
        """
        if self._open or self._last is None:
            raise UpstreamFailed(
                f"{self._who} ended before the answer was finished. Send the request again.", code=LOST
            )
        prompt = _count(self._usage, "prompt_tokens")
        details = self._usage.get("prompt_tokens_details")
        last = msgspec.structs.replace(
            self._last,
            num_prompt_tokens=max(0, prompt - self._num_prompt),
            num_cached_tokens=_count(details, "cached_tokens") if isinstance(details, Mapping) else 0,
        )
        if not last.token_ids:
            last = msgspec.structs.replace(last, num_tokens=last.num_tokens + self._untold())
        return self._copied(last)

    def _start(self, chunk: Mapping[str, Any], choice: Any) -> Started:
        self._started = True
        # Chat completions have them in the chunk, text completions in the choice.
        ids = chunk.get("prompt_token_ids") or (choice.get("prompt_token_ids") if isinstance(choice, Mapping) else None)
        self._num_prompt = len(ids) if ids else _count(self._usage, "prompt_tokens")
        return Started(self._id, self._num_prompt, list(ids or ()), self._prompt, self._media)

    def _delta(self, choice: Any) -> list[Event]:
        index = choice.get("index") if isinstance(choice, Mapping) else None
        if index not in self._open:
            if isinstance(index, int) and 0 <= index < self._wanted:
                return []  # an empty piece behind the end
            raise UpstreamFailed(f"{self._who} sent a piece of a choice that was not asked for.")
        ids = choice.get("token_ids") or []
        delta = Delta(
            self._id,
            index,
            self._text(index, choice) if self._detokenize else "",
            list(ids),
            _logprobs(choice.get("logprobs"), ids, self._num_logprobs),
            num_tokens=0 if ids else self._untold(),
        )
        self._told += len(ids)
        reason = choice.get("finish_reason")
        if reason is None:
            something = delta.text or delta.token_ids or delta.logprobs or delta.num_tokens
            return self._copied(delta) if something else []
        if reason == "error":
            raise UpstreamFailed(f"{self._who} gave this answer up. Send the request again.")
        known = _REASONS.get(reason)
        stop_reason = choice.get("stop_reason") if known else reason
        delta = msgspec.structs.replace(delta, finish_reason=known or "stop", stop_reason=stop_reason)
        self._open.discard(index)
        if self._open:
            return self._copied(delta)
        self._last = delta
        return []

    def _text(self, index: int, choice: Mapping[str, Any]) -> str:
        """A reasoning model's thoughts, which some servers keep apart, are put where the model wrote them."""
        if "delta" not in choice:
            return choice.get("text") or ""
        piece = choice["delta"] or {}
        thought, text = piece.get("reasoning") or piece.get("reasoning_content") or "", piece.get("content") or ""
        if thought and index not in self._thinking:
            self._thinking.add(index)
            thought = _THINK + thought
        if index in self._thinking and (text or choice.get("finish_reason")):
            self._thinking.discard(index)
            thought += _THOUGHT if text else ""
        return str(thought) + str(text)

    def _untold(self) -> int:
        count = max(0, _count(self._usage, "completion_tokens") - self._told)
        self._told += count
        return count

    def _copied(self, delta: Delta) -> list[Event]:
        return [delta, *(msgspec.structs.replace(delta, index=index) for index in range(1, self._copies))]


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0


def _logprobs(wire: Any, ids: list[int], most: int) -> list[PositionLogprobs]:
    """Read either endpoint's form; ids beside the chosen tokens' are not known and become -1."""
    if not isinstance(wire, Mapping):
        return []
    if isinstance(wire.get("content"), list):
        found = [(_chat_token(entry), [_chat_token(top) for top in entry["top_logprobs"]]) for entry in wire["content"]]
    else:
        found = [
            (TokenLogprob(-1, token, value), [TokenLogprob(-1, *entry) for entry in (top or {}).items()])
            for token, value, top in zip(
                wire["tokens"],
                wire["token_logprobs"],
                wire.get("top_logprobs") or [{}] * len(wire["tokens"]),
                strict=True,
            )
        ]
    return [
        _position(chosen, top, ids[number] if number < len(ids) else -1, most)
        for number, (chosen, top) in enumerate(found)
    ]


def _position(chosen: TokenLogprob, top: list[TokenLogprob], token_id: int, most: int) -> PositionLogprobs:
    ranked = sorted(top, key=lambda entry: -entry.logprob)[:most]
    # With two tokens of one text and one probability it does not matter which is which.
    place = next((n for n, e in enumerate(ranked) if (e.token, e.logprob) == (chosen.token, chosen.logprob)), None)
    rank = 0 if place is None else place + 1
    entries = [
        msgspec.structs.replace(entry, rank=number, token_id=token_id if number == rank else -1)
        for number, entry in enumerate(ranked, start=1)
    ]
    return PositionLogprobs(msgspec.structs.replace(chosen, token_id=token_id, rank=rank), entries)


def _chat_token(wire: Mapping[str, Any]) -> TokenLogprob:
    data = wire.get("bytes")
    return TokenLogprob(-1, wire["token"], wire["logprob"], data=bytes(data) if data else b"")
