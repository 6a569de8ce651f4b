"""Events -> chat.completion.chunk, and their fold, chat.completion."""

from __future__ import annotations

import msgspec

from sensorium.protocol import sse
from sensorium.protocol.logprobs import ChatLogprobs, chat_logprobs
from sensorium.protocol.tally import ChoiceSoFar, Tally
from sensorium.protocol.usage import Usage
from sensorium.types import Event, FinishReason, Started


class ChatDelta(msgspec.Struct, omit_defaults=True):
    """New text of a choice; `role` only in its first chunk. `content` is a string in every chunk."""

    content: str
    role: str = ""


class ChunkChoice(msgspec.Struct):
    """One entry of a chunk's `choices`."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


class Chunk(msgspec.Struct):
    """One streamed event."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class ChatMessage(msgspec.Struct):
    """The whole text of a choice."""

    role: str
    content: str
    refusal: None = None


class ChatChoice(msgspec.Struct):
    """One entry of a completion's `choices`."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: int | str | None


class ChatCompletion(msgspec.Struct):
    """The answer in one piece."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatAnswer:
    """One chat answer; see `protocol.answer.Answer`."""

    def __init__(
        self,
        id: str,
        model: str,
        created: int,
        n: int = 1,
        logprobs: bool = False,
        include_usage: bool = False,
        running_usage: bool = False,
        echo: str = "",
    ) -> None:
        self.id = id
        self.model = model
        self.tally = Tally(n)
        self._created = created
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._running_usage = running_usage
        self._choices = [ChoiceSoFar() for _ in range(n)]
        self._echo = echo

    def chunk(self, event: Event) -> bytes:
        """Return `event` as server-sent events: at the start one chunk with the role for every choice."""
        self.tally.add(event)
        if isinstance(event, Started):
            roles = [ChunkChoice(index, ChatDelta(self._echo, "assistant")) for index in range(len(self._choices))]
            return b"".join(self._encode([choice]) for choice in roles)
        if not (event.text or event.logprobs or event.finish_reason):
            return b""  # half a character, or text held back for a stop string
        choice = ChunkChoice(
            event.index,
            ChatDelta(event.text),
            chat_logprobs(event.logprobs) if event.logprobs else None,
            event.finish_reason,
            event.stop_reason,
        )
        return self._encode([choice])

    def end(self) -> bytes:
        """Return the usage chunk where asked for, and [DONE]."""
        self.tally.check_complete()
        return (self._encode([], self.tally.usage()) if self._include_usage else b"") + sse.DONE

    def add(self, event: Event) -> None:
        """Fold `event` in."""
        self.tally.add(event)
        if not isinstance(event, Started):
            self._choices[event.index].add(event)

    def body(self) -> ChatCompletion:
        """Return the answer in one piece."""
        self.tally.check_complete()
        choices = [
            ChatChoice(
                index,
                ChatMessage("assistant", self._echo + "".join(choice.texts)),
                chat_logprobs(choice.positions) if self._logprobs else None,
                choice.finish_reason,
                choice.stop_reason,
            )
            for index, choice in enumerate(self._choices)
        ]
        return ChatCompletion(self.id, "chat.completion", self._created, self.model, choices, self.tally.usage())

    def _encode(self, choices: list[ChunkChoice], usage: Usage | None = None) -> bytes:
        if usage is None and self._running_usage:
            usage = self.tally.usage(itemised=False)  # the list once, at the end, not with every token
        return sse.event(Chunk(self.id, "chat.completion.chunk", self._created, self.model, choices, usage))
