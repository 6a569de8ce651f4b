"""Runs sequences on a model of the transformers library, one after another, with the face of `engine.Engine`."""

from __future__ import annotations

import logging
from typing import Any

import torch

from sensorium.engine.engine import StepResult
from sensorium.engine.sampler import sample
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.engine.team import Team
from sensorium.hf.decoding import Decoding, begin, make_neutral
from sensorium.hf.prompting import LibraryPrompt

log = logging.getLogger(__name__)


class OneByOne:
    """A queue of sequences; the first is decoded to its end. Choices of one request follow each other."""

    def __init__(self, model: Any, team: Team) -> None:
        make_neutral(model)
        self._model, self._team = model, team
        self._queue: list[Sequence] = []
        self._current: tuple[Sequence, Decoding] | None = None
        self._kept: tuple[Prompt, Decoding] | None = None  # a computed prompt that further choices start from
        self.num_steps = 0
        self.num_computed_tokens = 0

    @property
    def num_running(self) -> int:
        """Sequences being decoded: one or none."""
        return int(self._current is not None)

    @property
    def num_waiting(self) -> int:
        """Sequences behind that one."""
        return len(self._queue) - self.num_running

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._queue)

    def add(self, sequence: Sequence) -> bool:
        """Queue a sequence, behind those of its own request if there are any. Always True: nothing is missing."""
        own = [index for index, queued in enumerate(self._queue) if queued.id[0] == sequence.id[0]]
        self._queue.insert(own[-1] + 1 if own else len(self._queue), sequence)
        return True

    def remove(self, sequence: Sequence) -> None:
        """Drop a finished or aborted sequence; its cache is freed."""
        if sequence in self._queue:
            self._queue.remove(sequence)
        if self._current is not None and self._current[0] is sequence:
            self._current = None
        if self._kept is not None and not any(queued.prompt is self._kept[0] for queued in self._queue):
            self._kept = None

    @torch.inference_mode()
    def step(self) -> StepResult:
        """Compute the first sequence's next token and append it. One that fails is reported, and held no longer."""
        self.num_steps += 1
        sequence = self._queue[0]
        try:
            with self._team.at_work(*self._work(sequence)):
                decoding = self._advance(sequence)
                sampled = sample(decoding.scores(), [sequence])[0]
        except Exception:
            log.exception("The model failed on one sequence")
            self._current = self._kept = None
            return StepResult(failed=[sequence])
        sequence.token_ids.append(sampled.token_id)
        return StepResult(tokens=[(sequence, sampled)])

    def _work(self, sequence: Sequence) -> tuple[str, int]:
        """What the sequence's next step computes: a token, or its prompt, unless that is kept."""
        begun = self._current is not None and self._current[0] is sequence
        kept = self._kept is not None and self._kept[0] is sequence.prompt
        return ("token", 1) if begun or kept else ("prompt", sequence.num_prompt_tokens)

    def _advance(self, sequence: Sequence) -> Decoding:
        if self._current is not None and self._current[0] is sequence:
            decoding = self._current[1]
            decoding.push(sequence.token_ids[-1])
            self.num_computed_tokens += 1
            return decoding
        prompt = sequence.prompt
        if self._kept is not None and self._kept[0] is prompt:
            decoding = self._kept[1].fork()
        else:
            assert isinstance(prompt, LibraryPrompt)
            decoding = begin(self._model, prompt, sequence.max_tokens)
            self.num_computed_tokens += len(prompt.token_ids)
            if sequence.sampling.n > 1:
                self._kept = (prompt, decoding.fork())
        self._current = (sequence, decoding)
        return decoding
