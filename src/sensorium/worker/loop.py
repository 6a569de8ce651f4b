"""The engine's thread: takes prepared requests in, steps the engine, gives events out."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from sensorium.engine.engine import StepResult
from sensorium.engine.sampler import Sampled
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.errors import SensoriumError
from sensorium.output.choice import ChoiceOutput
from sensorium.output.logprobs import position_logprobs
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import Delta, Event, FinishReason, PositionLogprobs, Request, Started

log = logging.getLogger(__name__)
_MAX_FAILED_STEPS = 3


class Steps(Protocol):
    """What the loop drives: `engine.Engine`, or another that runs sequences step by step. One thread calls it."""

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""

    def add(self, sequence: Sequence) -> bool:
        """Queue a sequence; False, and nothing is queued, where its prompt has to be prepared again."""

    def remove(self, sequence: Sequence) -> None:
        """Drop a finished or aborted sequence and free what it holds."""

    def step(self) -> StepResult:
        """Advance by one step; new tokens are appended to their sequences."""


@dataclass
class Choice:
    """One sequence and the text it has shown."""

    sequence: Sequence
    output: ChoiceOutput
    num_cached_reported: bool = False


@dataclass
class Job:
    """A request in the engine. With n > 1 the other choices start when the first has computed the prompt."""

    request: Request
    prompt: Prompt
    text: str
    choices: list[Choice] = field(default_factory=list)  # under way
    num_to_start: int = 0


@dataclass(frozen=True)
class Call:
    """Something to do with the engine between two steps."""

    work: Callable[[], None]
    done: Future[None]

    def __call__(self) -> None:
        try:
            self.work()
            self.done.set_result(None)
        except BaseException as error:
            self.done.set_exception(error)


class EngineLoop:
    """Drives an engine from a thread of its own.

    Args:
        engine: used by this thread only, once `start` was called.
        tokenizer: for text, logprobs and bad words.
        eos_token_ids: ids that end an answer unless `ignore_eos`.
        max_model_len: prompt and answer together.
        seed: of requests that bring none; None: a new one for each.
        on_events: called from the engine's thread with all events of one step.
        on_failed: called from the engine's thread.
        on_begun: called from the engine's thread for a request that the engine has taken: its way there is over.
        prepare_again: called for a request whose cached encoder output has been evicted meanwhile.
        on_dead: called when the loop cannot go on.
        on_start: called first of all in the engine's thread.
        end_texts: texts that end an answer unless `ignore_eos`.
    """

    def __init__(
        self,
        engine: Steps,
        tokenizer: Tokenizer,
        *,
        eos_token_ids: frozenset[int],
        max_model_len: int,
        seed: int | None,
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_begun: Callable[[Request], object],
        prepare_again: Callable[[Request], None],
        on_dead: Callable[[], None],
        on_start: Callable[[], None] = lambda: None,
        end_texts: tuple[str, ...] = (),
    ) -> None:
        self.turns = 0
        self._engine, self._tokenizer = engine, tokenizer
        self._eos_token_ids, self._max_model_len = eos_token_ids, max_model_len
        self._seed = seed
        self._on_events, self._on_failed = on_events, on_failed
        self._on_begun, self._prepare_again, self._on_dead = on_begun, prepare_again, on_dead
        self._on_start = on_start
        self._end_texts = end_texts
        self._inbox: queue.SimpleQueue[Job | str | Call | None] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._owner: dict[Sequence, tuple[Job, Choice]] = {}
        self._failed_steps = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, request: Request, prompt: Prompt, text: str) -> None:
        """Queue a prepared request; thread-safe."""
        self._inbox.put(Job(request, prompt, text))

    def abort(self, request_id: str) -> None:
        """Drop a request before the next step; thread-safe."""
        self._inbox.put(request_id)

    def call(self, work: Callable[[], None]) -> None:
        """Do something with the engine in its own thread, behind all that was submitted or aborted before; blocks."""
        call = Call(work, Future())
        self._inbox.put(call)
        call.done.result()

    def close(self) -> None:
        """End the thread; what runs is dropped."""
        self._inbox.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        try:
            self._on_start()
            self._drive()
        except Exception:  # nobody waits for this thread: without it every request would wait for ever
            log.exception("The engine's thread failed")
            self._on_dead()

    def _drive(self) -> None:
        while self._take_in():
            self.turns += 1
            if not self._engine.has_work:
                continue
            try:
                result = self._engine.step()
            except Exception:
                # Not one sequence's doing, or the engine would have named it: end what runs, and try once more.
                log.exception("An engine step failed")
                if not self._fail_all():
                    self._on_dead()
                    return
                continue
            self._failed_steps = 0
            if result.tokens:
                self._on_events([self._advance(sequence, sampled) for sequence, sampled in result.tokens])
            for sequence in result.failed:
                self._fail(sequence.id[0])

    def _take_in(self) -> bool:
        """Handle what arrived; wait for something when there is no work. False: close."""
        block = not self._engine.has_work
        while True:
            try:
                item = self._inbox.get(timeout=1.0) if block else self._inbox.get_nowait()
            except queue.Empty:
                return True
            block = False
            if item is None:
                return False
            if isinstance(item, str):
                self._abort(item)
            elif isinstance(item, Call):
                item()
            else:
                self._begin(item)

    def _begin(self, job: Job) -> None:
        first = self._new_choice(job, 0)
        if not self._engine.add(first.sequence):
            self._prepare_again(job.request)
            return
        self._on_begun(job.request)
        self._own(job, first)
        job.num_to_start = job.request.sampling.n - 1
        self._jobs[job.request.id] = job
        ids, text = job.prompt.token_ids, job.text if job.request.sampling.detokenize else ""
        self._on_events([Started(job.request.id, len(ids), ids, text, job.prompt.media)])

    def _new_choice(self, job: Job, index: int) -> Choice:
        sampling = job.request.sampling
        room = self._max_model_len - len(job.prompt.token_ids)
        seed = self._seed if sampling.seed is None else sampling.seed
        if seed is None:
            seed = secrets.randbits(63)
        sequence = Sequence(
            (job.request.id, index),
            job.prompt,
            sampling,
            max_tokens=room if sampling.max_tokens is None else min(sampling.max_tokens, room),
            stop_token_ids=frozenset(sampling.stop_token_ids or ())
            | (frozenset() if sampling.ignore_eos else self._eos_token_ids),
            seed=seed + index,
            bad_words=self._bad_words(tuple(sampling.bad_words or ())),
        )
        return Choice(sequence, ChoiceOutput(self._tokenizer, sampling, () if sampling.ignore_eos else self._end_texts))

    def _bad_words(self, words: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """A word may stand at the start of a text or behind a blank: ban both spellings."""
        spelled = {
            tuple(self._tokenizer.encode_plain(prefix + word.lstrip())) for word in words for prefix in ("", " ")
        }
        return tuple(sorted(ids for ids in spelled if ids))

    def _own(self, job: Job, choice: Choice) -> None:
        job.choices.append(choice)
        self._owner[choice.sequence] = (job, choice)

    def _advance(self, sequence: Sequence, sampled: Sampled) -> Delta:
        """Turn a sequence's new token into a delta, and end the sequence where it ends."""
        job, choice = self._owner[sequence]
        while job.num_to_start:
            another = self._new_choice(job, job.request.sampling.n - job.num_to_start)
            job.num_to_start -= 1
            self._engine.add(another.sequence)
            self._own(job, another)
        token_id, output = sampled.token_id, choice.output
        text = ""
        finish_reason: FinishReason | None = None
        stop_reason: int | str | None = None
        if token_id in sequence.stop_token_ids:
            finish_reason = "stop"
            stop_reason = None if token_id in self._eos_token_ids else token_id
            if sequence.sampling.include_stop_str_in_output:
                text = output.push(token_id)
        else:
            text = output.push(token_id)
            if output.stop_hit is not None:
                finish_reason, stop_reason = "stop", self._hit(sequence, output.stop_hit)
            elif sequence.num_output_tokens >= sequence.max_tokens:
                finish_reason = "length"
        if finish_reason is not None:
            text += output.finish()
            if finish_reason == "length" and output.stop_hit is not None:  # in what was held back until now
                finish_reason, stop_reason = "stop", self._hit(sequence, output.stop_hit)
            self._end(job, choice)
        return self._delta(choice, sampled, text, finish_reason, stop_reason)

    def _hit(self, sequence: Sequence, stop: str) -> str | None:
        """What to say of a stop string: nothing, if it is the model's own."""
        return None if stop in self._end_texts and stop not in (sequence.sampling.stop or ()) else stop

    def _delta(
        self,
        choice: Choice,
        sampled: Sampled,
        text: str,
        finish_reason: FinishReason | None,
        stop_reason: int | str | None,
    ) -> Delta:
        sequence = choice.sequence
        cached = 0 if choice.num_cached_reported else sequence.num_cached
        choice.num_cached_reported = True
        return Delta(
            *sequence.id,
            text,
            [sampled.token_id],
            [] if sampled.logprob is None else [self._logprobs(sampled, sampled.logprob)],
            finish_reason,
            stop_reason,
            cached,
        )

    def _logprobs(self, sampled: Sampled, logprob: float) -> PositionLogprobs:
        top = [(token_id, value, rank) for rank, (token_id, value) in enumerate(sampled.top, start=1)]
        return position_logprobs(self._tokenizer, (sampled.token_id, logprob, sampled.rank), top)

    def _end(self, job: Job, choice: Choice) -> None:
        self._engine.remove(choice.sequence)
        del self._owner[choice.sequence]
        job.choices.remove(choice)
        if not job.choices and not job.num_to_start:
            del self._jobs[job.request.id]

    def _abort(self, request_id: str) -> None:
        job = self._jobs.get(request_id)
        if job is not None:
            job.num_to_start = 0
            for choice in list(job.choices):
                self._end(job, choice)

    def _fail_all(self) -> bool:
        """End every request after a failed step; False when steps keep failing."""
        self._failed_steps += 1
        for request_id in list(self._jobs):
            self._fail(request_id)
        return self._failed_steps < _MAX_FAILED_STEPS

    def _fail(self, request_id: str) -> None:
        if request_id in self._jobs:
            self._abort(request_id)
            self._on_failed(
                request_id, SensoriumError("The engine failed while it worked on this request; the log says why.")
            )


def exit_process() -> None:
    """What a worker does when its loop is dead: end, so that the gateway sees a death and not a hang."""
    os._exit(70)
