"""The options of `LLM(...)` that programs written for vLLM pass."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.errors import ConfigurationError
from sensorium.llm_options import engine_settings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tokenizer": "org/model"}, {"tokenizer": None}),
        ({"tokenizer": "/folder"}, {"tokenizer": "/folder"}),
        ({"generation_config": None}, {"generation_config": "vllm"}),
        ({"generation_config": "auto", "override_generation_config": None}, {"override_generation_config": {}}),
        ({"override_generation_config": {"top_k": 3}}, {"override_generation_config": {"top_k": 3}}),
        ({"tensor_parallel_size": 1, "trust_remote_code": True, "swap_space": 4}, {}),
    ],
)
def test_what_they_come_to(given: dict[str, Any], expected: dict[str, Any]) -> None:
    settings = engine_settings("org/model", given)
    assert {name: getattr(settings, name) for name in expected} == expected


def test_wrong_ones_are_named() -> None:
    with pytest.raises(TypeError, match="heat"):
        engine_settings("org/model", {"heat": 1})
    with pytest.raises(ConfigurationError, match="tensor_parallel_size"):
        engine_settings("org/model", {"tensor_parallel_size": 2})
