"""What a Pipeline yields: how far the answer is. Names are rtp-llm's."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sensorium.types import Delta, Event, Started


@dataclass
class AuxInfo:
    """How it went so far: milliseconds since the request, and tokens."""

    cost_time: float = 0.0
    iter_count: int = 0
    input_len: int = 0
    output_len: int = 0
    reuse_len: int = 0


@dataclass
class GenerateOutput:
    """One answer: its token ids, all of them also where the text comes in increments."""

    output_ids: list[int] = field(default_factory=list)
    finished: bool = False
    aux_info: AuxInfo = field(default_factory=AuxInfo)


@dataclass
class GenerateOutputs:
    """All answers of the request."""

    generate_outputs: list[GenerateOutput]


@dataclass
class GenerateResponse:
    """The answers' texts so far; with `return_incremental` what came since the last result."""

    generate_texts: list[str]
    generate_outputs: GenerateOutputs

    @property
    def batch_response(self) -> list[str]:
        """The same as `generate_texts`, under its first name."""
        return self.generate_texts

    @property
    def finished(self) -> bool:
        """Whether all answers are complete."""
        return all(output.finished for output in self.generate_outputs.generate_outputs)


class Progress:
    """Puts events together to what has been said so far."""

    def __init__(self, count: int, incremental: bool) -> None:
        self._texts = [""] * count
        self._outputs = [GenerateOutput() for _ in range(count)]
        self._incremental = incremental
        self._began = time.monotonic()

    def take(self, event: Event) -> GenerateResponse | None:
        """Return how far it is after `event`; None: nothing has been said yet."""
        if isinstance(event, Started):
            for output in self._outputs:
                output.aux_info.input_len = event.num_prompt_tokens
            return None
        self._add(event)
        texts = list(self._texts)
        if self._incremental:
            self._texts = [""] * len(texts)
        outputs = [
            GenerateOutput(list(one.output_ids), one.finished, AuxInfo(**vars(one.aux_info))) for one in self._outputs
        ]
        return GenerateResponse(texts, GenerateOutputs(outputs))

    def _add(self, delta: Delta) -> None:
        output = self._outputs[delta.index]
        self._texts[delta.index] += delta.text
        output.output_ids += delta.token_ids
        output.finished = delta.finish_reason is not None
        info = output.aux_info
        info.cost_time, info.iter_count = (time.monotonic() - self._began) * 1000, len(output.output_ids)
        info.output_len = len(output.output_ids)
        info.reuse_len = max(info.reuse_len, delta.num_cached_tokens)
