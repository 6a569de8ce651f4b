"""What the loop makes of a request before the engine has it."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.engine.sequence import Prompt
from sensorium.types import Message, Request, SamplingParams, Text
from sensorium.worker.loop import EngineLoop, Job
from tests.prompt import tiny

SAID = (Message("user", (Text("The quick"),)), Message("assistant", (Text("The quick"),)))


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"prompt": "The quick"}, " brown"),
        ({"prompt_token_ids": [1]}, " brown"),
        ({"messages": SAID, "continue_final_message": True}, " brown"),
        ({"messages": SAID[:1]}, "brown"),
        ({"prompt": (Text("The quick"),)}, "brown"),  # as rtp-llm's Pipeline shows it
    ],
)
def test_an_answer_that_continues_a_text_keeps_its_first_blank(fields: dict[str, Any], shown: str) -> None:
    tokenizer = tiny.ours("llama2_legacy")
    nothing: Any = lambda *_: None  # noqa: E731
    loop = EngineLoop(
        nothing,
        tokenizer,
        eos_token_ids=frozenset(),
        max_model_len=100,
        seed=0,
        on_events=nothing,
        on_failed=nothing,
        on_begun=nothing,
        prepare_again=nothing,
        on_dead=nothing,
    )
    job = Job(Request("r", SamplingParams(), **fields), Prompt(tokenizer.encode("The quick")), "")
    output = loop._new_choice(job, 0).output
    assert "".join(output.push(token_id) for token_id in tokenizer.encode("brown")) + output.finish() == shown
