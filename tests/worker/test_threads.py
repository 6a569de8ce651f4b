"""The threads a model computes on: as many as it was left, and the same answer on any number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium import LLM, SamplingParams
from sensorium.engine.team import Team
from sensorium.registry.hub import resolve
from sensorium.settings import EngineSettings
from sensorium.worker.native import NativeModel

GREEDY = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, logprobs=0)


@pytest.fixture(autouse=True)
def _the_number_of_this_process() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_model_computes_on_as_many_threads_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = NativeModel.load(
        EngineSettings(str(resolve("tiny-vl")), max_model_len=512),
        on_progress=lambda phase, fraction: None,
        on_events=lambda events: None,
        on_failed=lambda request_id, error: None,
    )
    try:
        assert model.beat()[1]["threads"] == 1
    finally:
        model.close()


class InTurns(Team):
    """Another number of threads for every step."""

    @contextmanager
    def at_work(self, kind: str, size: int) -> Iterator[None]:
        self.threads = 3 - self.threads
        torch.set_num_threads(self.threads)
        yield


def test_answers_are_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    content = [{"type": "image_pil", "image_pil": Image.fromarray(pixels)}, {"type": "text", "text": "What is there?"}]
    conversations = [[{"role": "user", "content": content[number % 2 :]}] for number in range(4)]

    def answers() -> list[tuple[list[int], float]]:
        with LLM("tiny-vl", dtype="float32", num_threads=2, max_model_len=512) as llm:
            results = [llm.chat(conversation, GREEDY, use_tqdm=False)[0] for conversation in conversations]
        return [(list(found.outputs[0].token_ids), found.outputs[0].cumulative_logprob or 0.0) for found in results]

    plain = answers()
    monkeypatch.setattr("sensorium.worker.native.engine_team", lambda most, device: InTurns(2, torch.set_num_threads))
    in_turns = answers()
    assert [ids for ids, _ in in_turns] == [ids for ids, _ in plain]
    assert [score for _, score in in_turns] == pytest.approx([score for _, score in plain], abs=1e-3)
