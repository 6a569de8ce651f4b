"""What an upstream is told of a prompt."""

from __future__ import annotations

from sensorium.inputs import from_messages, from_prompt
from sensorium.types import SamplingParams
from sensorium.upstream.body import prompt_body
from sensorium.upstream.dialect import VLLM


def test_special_tokens_are_not_asked_for_where_the_template_writes_them() -> None:
    vllm = VLLM
    chat = from_messages([{"role": "user", "content": "x"}], "m", "id", SamplingParams()).request
    assert "add_special_tokens" not in prompt_body(chat, "m", vllm, "vllm").fields
    raw = from_prompt("x", "m", "id", SamplingParams()).request
    assert "add_special_tokens" not in prompt_body(raw, "m", vllm, "vllm").fields  # it puts them by itself
