"""Events -> text_completion chunks, and their fold, text_completion."""

from __future__ import annotations

import msgspec

from sensorium.protocol import sse
from sensorium.protocol.logprobs import TextLogprobs, text_logprobs
from sensorium.protocol.tally import ChoiceSoFar, Tally
from sensorium.protocol.usage import Usage
from sensorium.types import Event, FinishReason, Started


class TextChoice(msgspec.Struct):
    """One entry of `choices`, in chunks and in the whole answer."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


class TextCompletion(msgspec.Struct):
    """A chunk (its `usage` is null but in the last one) or the answer in one piece."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class CompletionAnswer:
    """One answer of /v1/completions; see `protocol.answer.Answer`. Prompt p's choices are p * n ... p * n + n - 1."""

    def __init__(
        self,
        id: str,
        model: str,
        created: int,
        n: int = 1,
        num_prompts: int = 1,
        logprobs: bool = False,
        include_usage: bool = False,
        running_usage: bool = False,
        echo: bool = False,
    ) -> None:
        self.id = id
        self.model = model
        self.tally = Tally(n, num_prompts)
        self._created = created
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._running_usage = running_usage
        self._choices = [ChoiceSoFar() for _ in range(n * num_prompts)]
        self._echo = echo

    def chunk(self, event: Event) -> bytes:
        """Return `event` as a server-sent event; for Started the prompt, where it is wanted, and else nothing."""
        self.tally.add(event)
        if isinstance(event, Started):
            return b"".join(self._event(TextChoice(index, event.prompt)) for index in self._echoed(event))
        if not (event.text or event.logprobs or event.finish_reason):
            return b""
        logprobs = None
        if event.logprobs:
            state = self._choices[event.index]
            logprobs = text_logprobs(event.logprobs, state.offset)
            state.offset += sum(len(token) for token in logprobs.tokens)
        choice = TextChoice(event.index, event.text, logprobs, event.finish_reason, event.stop_reason)
        return self._event(choice)

    def end(self) -> bytes:
        """Return the usage chunk where asked for, and [DONE]."""
        self.tally.check_complete()
        return (sse.event(self._completion([], self.tally.usage())) if self._include_usage else b"") + sse.DONE

    def add(self, event: Event) -> None:
        """Fold `event` in."""
        self.tally.add(event)
        if not isinstance(event, Started):
            self._choices[event.index].add(event)
            return
        for index in self._echoed(event):
            self._choices[index].texts.append(event.prompt)

    def body(self) -> TextCompletion:
        """Return the answer in one piece."""
        self.tally.check_complete()
        choices = [
            TextChoice(
                index,
                "".join(choice.texts),
                text_logprobs(choice.positions, 0) if self._logprobs else None,
                choice.finish_reason,
                choice.stop_reason,
            )
            for index, choice in enumerate(self._choices)
        ]
        return self._completion(choices, self.tally.usage())

    def _echoed(self, event: Started) -> range:
        """Return the choices that begin with the prompt of `event`, whose number is the end of its id."""
        if not self._echo:
            return range(0)
        number = int(event.id[len(self.id) + 1 :] or 0)
        return range(number * self.tally.n, (number + 1) * self.tally.n)

    def _event(self, choice: TextChoice) -> bytes:
        return sse.event(self._completion([choice], self.tally.usage(itemised=False) if self._running_usage else None))

    def _completion(self, choices: list[TextChoice], usage: Usage | None) -> TextCompletion:
        return TextCompletion(self.id, "text_completion", self._created, self.model, choices, usage)
