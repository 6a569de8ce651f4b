"""A request's way from `generate` to the engine, and what of it is left when it goes away on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

from sensorium import SamplingParams
from sensorium.engine.engine import StepResult
from sensorium.engine.sampler import Sampled
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.errors import SensoriumError
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import Delta, Event, ModelInfo, Request
from sensorium.worker.model import LoadedModel

TOKENIZER: dict[str, Any] = {
    "decoder_kind": SimpleNamespace(name="byte_level"),
    "token_bytes": lambda token_id: bytes([token_id]),
    "special_ids": frozenset(),
}


class Steps:
    """An engine that gives each sequence the same token; `refuse` is called by `add`, and may say yes."""

    def __init__(self) -> None:
        self.sequences: list[Sequence] = []
        self.refuse: Callable[[Sequence], bool] = lambda _: False

    @property
    def has_work(self) -> bool:
        return bool(self.sequences)

    def add(self, sequence: Sequence) -> bool:
        if self.refuse(sequence):
            return False
        self.sequences.append(sequence)
        return True

    def remove(self, sequence: Sequence) -> None:
        self.sequences.remove(sequence)

    def step(self) -> StepResult:
        time.sleep(0.001)
        for sequence in self.sequences:
            sequence.token_ids.append(65)
        return StepResult([(sequence, Sampled(65)) for sequence in self.sequences])


class Builder:
    def __init__(self) -> None:
        self.forced: list[str] = []

    def build(self, request: Request, *, force_decode: bool = False, bounded: bool = True) -> tuple[Prompt, str]:
        if force_decode:
            self.forced.append(request.id)
        return Prompt([1, 2]), ""


class Running:
    """A model, what it told, and a wait for a request's end."""

    def __init__(self, **tokenizer: Any) -> None:
        self.engine, self.builder = Steps(), Builder()
        self.dead = threading.Event()
        self.told: dict[str, list[Event | SensoriumError]] = {}
        self._changed = threading.Condition()
        info = ModelInfo("m", "fake", "", 1000, ("text",), {}, "float32", "cpu", 0, 0, 0.0)
        self.model = LoadedModel(
            info,
            cast(Tokenizer, SimpleNamespace(**(TOKENIZER | tokenizer))),
            self.builder,
            self.engine,
            None,
            self._tell_all,
            self._tell,
            frozenset(),
            self.dead.set,
            dict,
        )

    def _tell_all(self, events: list[Event]) -> None:
        for event in events:
            self._tell(event.id, event)

    def _tell(self, request_id: str, what: Event | SensoriumError) -> None:
        with self._changed:
            self.told.setdefault(request_id, []).append(what)
            self._changed.notify_all()

    def ended(self, request_id: str) -> bool:
        """Wait for a last event or error; whether it came."""

        def there() -> bool:
            last = self.told.get(request_id, [None])[-1]
            return isinstance(last, SensoriumError) or (isinstance(last, Delta) and last.finish_reason is not None)

        with self._changed:
            return self._changed.wait_for(there, 30.0)


@contextmanager
def running(**tokenizer: Any) -> Iterator[Running]:
    made = Running(**tokenizer)
    try:
        yield made
    finally:
        made.model.close()


def request(request_id: str, **sampling: Any) -> Request:
    return Request(request_id, SamplingParams(**{"max_tokens": 3, **sampling}), prompt="x")


def test_what_is_prepared_again_can_still_be_aborted() -> None:
    with running() as made:

        def refuse(sequence: Sequence) -> bool:
            if sequence.id[0] != "a" or made.builder.forced:
                return False
            made.model.abort("a")  # while the engine's thread finds that a picture's features are gone
            return True

        made.engine.refuse = refuse
        made.model.generate(request("a"))
        time.sleep(0.2)
        made.model.generate(request("b"))
        assert made.ended("b")
        time.sleep(0.2)
        assert not made.builder.forced
        assert "a" not in made.told


def test_an_abort_before_does_not_cost_the_next_request_of_that_id_its_answer() -> None:
    with running() as made:
        seen: list[Sequence] = []

        def refuse(sequence: Sequence) -> bool:
            seen.append(sequence)
            if len(seen) > 1:
                return False
            made.model.abort("a")
            made.model.generate(request("a"))
            return True

        made.engine.refuse = refuse
        made.model.generate(request("a"))
        assert made.ended("a")
        time.sleep(0.1)
        assert len(seen) == 2
        assert not made.builder.forced


def test_what_is_prepared_again_is_answered() -> None:
    with running() as made:
        made.engine.refuse = lambda sequence: not made.builder.forced
        made.model.generate(request("a"))
        assert made.ended("a")
        assert made.builder.forced == ["a"]


def test_what_was_aborted_while_it_waited_is_not_prepared() -> None:
    with running() as made:
        gate = threading.Event()
        built: list[str] = []

        def build(request: Request, **_: Any) -> tuple[Prompt, str]:
            built.append(request.id)
            gate.wait(30.0)
            return Prompt([1, 2]), ""

        made.builder.build = build  # type: ignore[method-assign]
        for name in "abcde":
            made.model.generate(request(name))
        for name in "cd":
            made.model.abort(name)
        gate.set()
        assert made.ended("e")
        assert sorted(built) == ["a", "b", "e"]


def test_an_error_in_the_engines_thread_is_told() -> None:
    def broken(token_id: int) -> bytes:
        raise KeyError(token_id)

    with running(token_bytes=broken) as made:
        made.model.generate(request("a"))
        assert made.dead.wait(30.0)


def test_a_stop_string_in_what_was_held_back_to_the_end_is_the_reason() -> None:
    # SentencePiece holds bytes back until it is known that they make a character.
    spelled = {
        "decoder_kind": SimpleNamespace(name="sentencepiece", strip=0),
        "token_string": lambda token_id: f"<0x{token_id:02X}>",
    }
    with running(**spelled) as made:
        made.model.generate(request("a", stop="AAA"))
        made.model.generate(request("b", stop="B"))
        assert made.ended("a")
        assert made.ended("b")
        stopped, long = (cast(Delta, made.told[name][-1]) for name in "ab")
        assert (stopped.finish_reason, stopped.stop_reason, stopped.text) == ("stop", "AAA", "")
        assert (long.finish_reason, long.stop_reason, long.text) == ("length", None, "AAA")
