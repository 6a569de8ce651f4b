"""Events -> rtp-llm's answers: `response`, `finished` and `aux_info`, whole or as a stream that ends with [done].

A streamed answer holds the text so far, or with `return_incremental` only what is new.
Source: rtp-llm's server/inference_worker.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sensorium.protocol.rtp import RawRequest
from sensorium.protocol.tally import Tally
from sensorium.types import Delta, Event, Started

DONE = b"data:[done]\r\n\r\n"
_encoder = msgspec.json.Encoder()


@dataclass
class _Choice:
    text: str = ""
    new: str = ""
    output_ids: list[int] = field(default_factory=list)
    finished: bool = False
    cached: int = 0


class RawAnswer:
    """One answer of POST /; see `protocol.answer.Answer`."""

    def __init__(self, id: str, model: str, wanted: RawRequest) -> None:
        self.id = id
        self.model = model
        self._n = wanted.prompts[0].request.sampling.n
        self.tally = Tally(self._n, len(wanted.prompts))
        self._wanted = wanted
        self._start_s = time.perf_counter()
        self._input_ids: list[list[int]] = [[] for _ in wanted.prompts]
        self._input_len = [0 for _ in wanted.prompts]
        self._choices = [_Choice() for _ in range(self._n * len(wanted.prompts))]

    def chunk(self, event: Event) -> bytes:
        """Return `event` as a server-sent event; nothing for Started."""
        self.add(event)
        if isinstance(event, Started) or not (event.text or event.finish_reason):
            return b""
        data = b"data:" + _encoder.encode(self._shape()) + b"\r\n\r\n"
        for choice in self._choices:
            choice.new = ""
        return data

    def end(self) -> bytes:
        """Return the mark of the end."""
        self.tally.check_complete()
        return DONE

    def add(self, event: Event) -> None:
        """Fold `event` in."""
        self.tally.add(event)
        if isinstance(event, Started):
            number = int(event.id[len(self.id) + 1 :] or 0)
            self._input_len[number], self._input_ids[number] = event.num_prompt_tokens, event.prompt_token_ids
            return
        self._add(event, self._choices[event.index])

    @staticmethod
    def _add(event: Delta, choice: _Choice) -> None:
        choice.text += event.text
        choice.new += event.text
        choice.output_ids += event.token_ids
        choice.finished = event.finish_reason is not None
        choice.cached = max(choice.cached, event.num_cached_tokens)

    def body(self) -> object:
        """Return the answer in one piece."""
        self.tally.check_complete()
        return self._shape()

    def _shape(self) -> dict[str, Any]:
        answers = [self._prompt(number) for number in range(len(self._wanted.prompts))]
        return {"response_batch": answers} if self._wanted.batch else answers[0]

    def _prompt(self, number: int) -> dict[str, Any]:
        choices = self._choices[number * self._n : (number + 1) * self._n]
        several = [self._one(choice, number) for choice in choices]
        if not self._wanted.sequences:
            return several[0]
        return {name: [one[name] for one in several] for name in ("response", "finished", "aux_info")}

    def _one(self, choice: _Choice, number: int) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "response": choice.new if self._wanted.incremental else choice.text,
            "finished": choice.finished,
            "aux_info": {
                "cost_time": round(1000 * (time.perf_counter() - self._start_s), 3),  # ms
                "iter_count": len(choice.output_ids),
                "input_len": self._input_len[number],
                "output_len": len(choice.output_ids),
                "prefix_len": choice.cached,
            },
        }
        if self._wanted.input_ids:
            answer["input_ids"] = [self._input_ids[number]]
        if self._wanted.output_ids:
            answer["output_ids"] = [choice.output_ids]
        return answer
