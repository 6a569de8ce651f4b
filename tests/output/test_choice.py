"""One choice's text: tokens in, text up to the stop string out."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sensorium.output.choice import ChoiceOutput
from sensorium.output.logprobs import position_logprobs
from sensorium.types import SamplingParams
from tests.prompt import tiny


def run(text: str, **sampling: Any) -> tuple[str, str | None]:
    output = ChoiceOutput(tiny.ours("qwen"), SamplingParams(max_tokens=None, **sampling))
    shown = "".join(map(output.push, tiny.ours("qwen").encode(text)))
    return shown + output.finish(), output.stop_hit


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({}, ("one two. 三, four", None)),
        ({"stop": "two"}, ("one ", "two")),
        ({"stop": ["三", "two."]}, ("one ", "two.")),
        ({"stop": "two", "include_stop_str_in_output": True}, ("one two", "two")),
        ({"stop": "fourth"}, ("one two. 三, four", None)),
        ({"stop": "four"}, ("one two. 三, ", "four")),
        ({"skip_special_tokens": False}, ("one two. 三, four<|im_end|>", None)),
        ({"detokenize": False}, ("", None)),
        ({"detokenize": False, "stop": "two"}, ("", "two")),
    ],
)
def test_text_and_stop(sampling: dict[str, Any], expected: tuple[str, str | None]) -> None:
    assert run("one two. 三, four<|im_end|>", **sampling) == expected


def test_stop_strings_count_only_after_min_tokens() -> None:
    ids = tiny.ours("qwen").encode("a.b.c.d")
    assert len(ids) == 7
    assert run("a.b.c.d", stop=".", min_tokens=3) == ("a.b", ".")
    assert run("a.b.c.d", stop=".", min_tokens=4) == ("a.b.c", ".")


def test_nothing_comes_after_a_hit() -> None:
    output = ChoiceOutput(tiny.ours("qwen"), SamplingParams(stop="x"))
    first, second = tiny.ours("qwen").encode("x")[0], tiny.ours("qwen").encode("y")[0]
    assert (output.push(first), output.stop_hit) == ("", "x")
    assert output.push(second) + output.finish() == ""


def test_an_unfinished_character_at_the_end_is_shown_as_bad() -> None:
    assert tiny.ours("qwen").decode(tiny.ours("qwen").encode("ᚠ")[:1]) == "\ufffd"
    output = ChoiceOutput(tiny.ours("qwen"), SamplingParams(stop="z"))
    assert output.push(tiny.ours("qwen").encode("ᚠ")[0]) + output.finish() == "\ufffd"


def test_logprobs_name_tokens_and_bytes() -> None:
    ids = tiny.ours("qwen").encode("ᚠ")
    entry = position_logprobs(tiny.ours("qwen"), (ids[0], -0.5, 2), [(5, -0.1, 1)])
    assert (entry.chosen.token, entry.chosen.data, entry.chosen.rank) == ("\ufffd", "ᚠ".encode()[:1], 2)
    assert (entry.top[0].token_id, entry.top[0].logprob, entry.top[0].token) == (5, -0.1, tiny.ours("qwen").decode([5]))


def test_the_cost_of_a_token() -> None:
    ids = tiny.ours("qwen").encode("The quick brown fox jumps. ") * 2000
    output = ChoiceOutput(tiny.ours("qwen"), SamplingParams(stop=["\n\nHuman:", "###"]))
    start = time.thread_time()
    for token_id in ids:
        output.push(token_id)
    assert (time.thread_time() - start) / len(ids) < 30e-6  # about 2 us on an idle core


def test_texts_that_end_every_answer() -> None:
    tokenizer = tiny.ours("qwen")
    for text, shown in (("A cat.\n### Human", "A cat."), ("#1 and ##2\n", "#1 and ##2\n"), ("x y", "x ")):
        output = ChoiceOutput(tokenizer, SamplingParams(stop="y"), ("\n###", "###"))
        found = "".join([output.push(token_id) for token_id in tokenizer.encode(text)] + [output.finish()])
        assert found == shown


def test_the_end_of_an_answer_is_found_without_showing_it() -> None:
    tokenizer = tiny.ours("qwen")
    output = ChoiceOutput(tokenizer, SamplingParams(detokenize=False), ("###",))
    shown = "".join([output.push(token_id) for token_id in tokenizer.encode("A cat.### Human")] + [output.finish()])
    assert (shown, output.stop_hit) == ("", "###")
