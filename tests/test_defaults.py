"""The rule of docs/defaults.md: the request, then the operator, then the model, then the fallback."""

from __future__ import annotations

import pytest

from sensorium.protocol import chat, completions
from sensorium.protocol.parsed import Given
from sensorium.settings import EngineSettings
from sensorium.types import SamplingParams
from sensorium.worker.checkpoint import sampling_defaults

MODEL = {"temperature": 0.7, "top_p": 0.8, "max_new_tokens": 300}
OPERATOR = {"temperature": 0.5, "top_k": 9}


@pytest.mark.parametrize(("fallback", "max_tokens"), [(chat.FALLBACK, None), (completions.FALLBACK, 16)])
def test_the_fallback_is_what_the_page_says(fallback: dict[str, int | None], max_tokens: int | None) -> None:
    used = Given({}, fallback).over({})
    assert (used.temperature, used.top_p, used.top_k, used.min_p) == (1.0, 1.0, -1, 0.0)
    assert (used.repetition_penalty, used.presence_penalty, used.frequency_penalty) == (1.0, 0.0, 0.0)
    assert (used.max_tokens, used.seed, used.n) == (max_tokens, None, 1)


@pytest.mark.parametrize("fallback", [chat.FALLBACK, completions.FALLBACK])
def test_the_first_that_says_anything_counts(fallback: dict[str, int | None]) -> None:
    defaults = sampling_defaults(MODEL, EngineSettings("m", override_generation_config=OPERATOR))
    used = Given({"temperature": 0.1, "max_tokens": 5}, fallback).over(defaults)
    assert (used.temperature, used.top_p, used.top_k, used.max_tokens) == (0.1, 0.8, 9, 5)
    used = Given({}, fallback).over(defaults)
    assert (used.temperature, used.max_tokens) == (0.5, 300)
    used = Given({}, fallback).over(sampling_defaults(MODEL, EngineSettings("m", generation_config="vllm")))
    assert (used.temperature, used.max_tokens) == (1.0, fallback["max_tokens"])


def test_the_python_class_keeps_vllms_defaults() -> None:
    params = SamplingParams()
    assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (1.0, 1.0, -1, 16)
