"""A real model that sleeps and wakes, asked to right behind requests that were given up."""

from __future__ import annotations

import queue

from sensorium import SamplingParams
from sensorium.errors import SensoriumError
from sensorium.registry.hub import resolve
from sensorium.settings import EngineSettings
from sensorium.types import Delta, Event, Request
from sensorium.worker.native import NativeModel


def test_a_model_sleeps_behind_requests_that_were_given_up_and_answers_alike_afterwards() -> None:
    told: queue.SimpleQueue[list[Event] | SensoriumError] = queue.SimpleQueue()
    model = NativeModel.load(
        EngineSettings(str(resolve("tiny-vl")), dtype="float32", max_model_len=512, num_threads=1),
        on_progress=lambda phase, fraction: None,
        on_events=told.put,
        on_failed=lambda request_id, error: told.put(error),
    )

    def answer(request_id: str) -> list[int]:
        sampling = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
        model.generate(Request(request_id, sampling, prompt="The picture shows"))
        ids: list[int] = []
        while True:
            events = told.get(timeout=60)
            assert isinstance(events, list), events
            for event in events:
                if isinstance(event, Delta) and event.id == request_id:
                    ids += event.token_ids
                    if event.finish_reason is not None:
                        return ids

    try:
        before = answer("a")
        for number in range(20):
            long = SamplingParams(max_tokens=400, temperature=0, ignore_eos=True)
            model.generate(Request(f"b{number}", long, prompt="The"))
            while not any(event.id == f"b{number}" for event in told.get(timeout=60)):  # type: ignore[union-attr]
                pass
            model.abort(f"b{number}")
            model.sleep()
            model.wake()
        assert answer("c") == before
    finally:
        model.close()
