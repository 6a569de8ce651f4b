from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from sensorium.engine.sequence import Sequence
from sensorium.engine.team import Team
from sensorium.hf.engine import OneByOne
from sensorium.hf.prompting import LibraryPrompt
from sensorium.types import SamplingParams
from tests.hf.checkpoints import gemma2


@pytest.fixture
def engine(tmp_path: Path) -> OneByOne:
    return OneByOne(
        transformers.AutoModelForCausalLM.from_pretrained(gemma2(tmp_path)).eval(), Team(1, lambda threads: None)
    )


def sequence(name: str, index: int = 0, prompt: LibraryPrompt | None = None, n: int = 1) -> Sequence:
    sampling = SamplingParams(n=n, temperature=0, max_tokens=3)
    return Sequence((name, index), prompt or LibraryPrompt([1, 2, 3]), sampling, 3, frozenset(), seed=0)


def run(engine: OneByOne) -> list[tuple[str, int]]:
    """Step to the end; return whose token each step gave."""
    order = []
    while engine.has_work:
        result = engine.step()
        for advanced, _ in result.tokens:
            order.append(advanced.id)
            if advanced.num_output_tokens == advanced.max_tokens:
                engine.remove(advanced)
    return order


def test_sequences_run_one_after_another_and_choices_of_a_request_together(engine: OneByOne) -> None:
    prompt = LibraryPrompt([5, 6])
    for queued in (sequence("a", 0, prompt, n=2), sequence("b"), sequence("a", 1, prompt, n=2)):
        assert engine.add(queued)
    assert run(engine) == [("a", 0)] * 3 + [("a", 1)] * 3 + [("b", 0)] * 3
    assert engine.num_computed_tokens == 2 + 2 + 2 + 3 + 2  # the second choice starts from the first one's prompt
    assert engine._current is engine._kept is None


def test_choices_from_a_kept_prompt_equal_choices_from_their_own(engine: OneByOne) -> None:
    long = LibraryPrompt(list(range(20)))  # longer than the window
    first, second, own = sequence("a", 0, long, n=2), sequence("a", 1, long, n=2), sequence("b", 0, long)
    for queued in (first, second, own):
        engine.add(queued)
    run(engine)
    assert first.token_ids == second.token_ids == own.token_ids


def test_a_removed_sequence_frees_its_cache_and_the_next_one_runs(engine: OneByOne) -> None:
    first, second = sequence("a"), sequence("b")
    engine.add(first)
    engine.add(second)
    engine.step()
    assert (engine.num_running, engine.num_waiting) == (1, 1)
    engine.remove(first)
    assert (engine.num_running, engine.num_waiting) == (0, 1)
    assert run(engine) == [("b", 0)] * 3


def test_a_failing_sequence_is_reported_and_the_next_one_runs(engine: OneByOne) -> None:
    bad, good = sequence("bad", prompt=LibraryPrompt([99_999])), sequence("good")
    engine.add(bad)
    engine.add(good)
    assert engine.step().failed == [bad]
    engine.remove(bad)
    assert run(engine) == [("good", 0)] * 3


def test_a_prompt_may_hold_the_padding_token(engine: OneByOne) -> None:
    pad = engine._model.config.pad_token_id
    ids = [pad, 5, pad, 7]
    queued = sequence("a", prompt=LibraryPrompt(ids))
    engine.add(queued)
    run(engine)
    with torch.inference_mode():
        logits = engine._model(input_ids=torch.tensor([ids])).logits
    assert queued.token_ids[4] == int(logits[0, -1].argmax())
