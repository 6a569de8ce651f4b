"""Each sampling rule on logits small enough to check by hand, and the seed's promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sensorium.engine import sampler
from sensorium.engine.sampler import sample
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.types import SamplingParams


def sequence(prompt: list[int], output: list[int] = (), *, seed: int = 0, **params: Any) -> Sequence:  # type: ignore[assignment]
    made = Sequence(
        ("r", 0), Prompt(prompt), SamplingParams(**params), 100, frozenset(params.get("stop_token_ids", ())), seed
    )
    made.token_ids += list(output)
    return made


def pick(logits: list[float], item: Sequence) -> int:
    return sample(torch.tensor([logits]), [item])[0].token_id


def draws(logits: list[float], count: int = 400, **params: Any) -> list[int]:
    rows = torch.tensor([logits] * count)
    return [s.token_id for s in sample(rows, [sequence([0], seed=seed, **params) for seed in range(count)])]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert pick([0.0, 3.0, 2.0], sequence([0], temperature=0)) == 1


def test_frequencies_follow_the_distribution() -> None:
    found = draws([math.log(0.6), math.log(0.3), math.log(0.1)], 3000)
    assert [round(found.count(token) / 3000, 1) for token in range(3)] == [0.6, 0.3, 0.1]


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 2}),
        ({"top_p": 0.5}, {1}),
        ({"top_p": 0.8}, {1, 2}),
        ({"min_p": 0.9}, {1}),
        ({"min_p": 0.4}, {1, 2}),
        ({"top_k": 3, "top_p": 0.55}, {1}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_truncations(params: dict[str, Any], allowed: set[int]) -> None:
    logits = [math.log(p) for p in (0.05, 0.6, 0.3, 0.05)]
    assert set(draws(logits, **params)) == allowed


def test_top_p_looks_past_the_first_candidates_when_the_distribution_is_flat() -> None:
    found = draws([0.0] * 5000, 300, top_p=0.9)
    assert max(found) > 2000  # a truncation to the first thousand candidates would show here


def test_repetition_penalty_counts_prompt_and_output() -> None:
    assert pick([2.0, 1.9, -9.0], sequence([0], temperature=0, repetition_penalty=1.2)) == 1
    assert pick([-1.0, -1.1], sequence([0], temperature=0, repetition_penalty=1.2)) == 1


def test_presence_and_frequency_count_output_only() -> None:
    assert pick([2.0, 1.5], sequence([0, 0, 0], temperature=0, presence_penalty=1.0)) == 0
    assert pick([2.0, 1.5], sequence([1], [0], temperature=0, presence_penalty=1.0)) == 1
    assert pick([2.0, 1.5], sequence([1], [0], temperature=0, frequency_penalty=0.4)) == 0
    assert pick([2.0, 1.5], sequence([1], [0, 0], temperature=0, frequency_penalty=0.4)) == 1


def test_bias_min_tokens_and_bad_words() -> None:
    assert pick([2.0, 1.0], sequence([0], temperature=0, logit_bias={1: 5.0})) == 1
    assert pick([2.0, 1.0], sequence([0], temperature=0, min_tokens=1, stop_token_ids=[0])) == 1
    assert pick([2.0, 1.0], sequence([0], temperature=0, min_tokens=1, stop_token_ids=[0, 151645, -3])) == 1
    assert pick([2.0, 1.0], sequence([0], [1], temperature=0, min_tokens=1, stop_token_ids=[0])) == 0
    banned = sequence([0], [7], temperature=0)
    banned.bad_words = ((7, 0),)
    assert pick([2.0, 1.0], banned) == 1
    other = sequence([0], [6], temperature=0)
    other.bad_words = ((7, 0),)
    assert pick([2.0, 1.0], other) == 0


def test_same_seed_same_draw_whatever_else_is_in_the_batch() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 50, generator=generator)
    alone = sample(logits.clone(), [sequence([0], [1, 2], seed=7)])[0].token_id
    crowd = torch.cat([torch.randn(5, 50, generator=generator), logits, torch.randn(2, 50, generator=generator)])
    items = [sequence([0], [1] * n, seed=n, top_k=5) for n in range(5)]
    items += [sequence([0], [1, 2], seed=7), sequence([0], temperature=0), sequence([0], temperature=0)]
    assert sample(crowd, items)[5].token_id == alone


def test_logprobs_are_those_of_the_model() -> None:
    logits = [math.log(p) for p in (0.1, 0.6, 0.3)]
    got = sample(torch.tensor([logits]), [sequence([0], temperature=0, logprobs=2, logit_bias={2: 9.0})])[0]
    assert got.token_id == 2
    assert got.logprob == pytest.approx(math.log(0.3), abs=1e-5)
    assert got.rank == 2
    assert [token for token, _ in got.top] == [1, 2]


@pytest.mark.parametrize("vocab_size", [1, 97, 96, 1280])
def test_the_likeliest_token_is_that_of_argmax(vocab_size: int) -> None:
    logits = torch.randn(5, vocab_size, generator=torch.Generator().manual_seed(1))
    assert sampler._likeliest(logits).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 1e-38, 1e-9, 1e-5])
def test_a_tiny_temperature_takes_the_likeliest(temperature: float) -> None:
    assert set(draws([20.0, 30.0, 25.0], 20, temperature=temperature)) == {1}
    assert set(draws([-20.0, -5.0, -25.0], 20, temperature=temperature, top_p=0.9)) == {1}
