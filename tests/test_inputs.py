"""What is no prompt and no conversation for the offline API: always one clear error, before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sensorium.errors import InvalidRequest
from sensorium.inputs import from_messages, from_prompt, prompt_list
from sensorium.llm import LLM
from sensorium.types import SamplingParams
from tests.fake_native import FakeModel

SAMPLING = SamplingParams()
SOUND = np.zeros(3, np.float32)
FRAMES = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (None, "prompt"),
        (5, "prompt"),
        (np.int64(5), "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt_token_ids": "ab"}, "prompt_token_ids"),
        ([1.5], "prompt_token_ids"),
        ({"prompt_token_ids": b"ab"}, "prompt_token_ids"),
        ({"prompt": "x", "cache_salt": 5}, "cache_salt"),
        ({"prompt": "x", "cache_salt": "\udc80"}, "cache_salt"),
        ({"prompt": "x", "multi_modal_data": [1]}, "multi_modal_data"),
        ({"prompt": "x", "mm_processor_kwargs": "ab"}, "mm_processor_kwargs"),
        ({"prompt": "x", "multi_modal_data": {"audio": (SOUND, "16k")}}, "multi_modal_data['audio'][0]"),
        ({"prompt": "x", "multi_modal_data": {"audio": (SOUND, float("nan"))}}, "multi_modal_data['audio'][0]"),
        ({"prompt": "x", "multi_modal_data": {"video": (FRAMES, {"fps": "a"})}}, "multi_modal_data['video'][0]"),
        (
            {"prompt": "x", "multi_modal_data": {"video": (FRAMES, {"fps": 1, "frames_indices": ["a", "b"]})}},
            "multi_modal_data['video'][0]",
        ),
    ],
)
def test_what_is_no_prompt_is_refused(prompt: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_prompt(prompt, "m", "id", SAMPLING)
    assert caught.value.param == param


def test_token_ids_may_be_numpy_s_and_bytes_are_none() -> None:
    request = from_prompt(np.array([1, 2]), "m", "id", SAMPLING).request  # type: ignore[arg-type]
    assert request.prompt_token_ids == [1, 2]
    assert {type(one) for one in request.prompt_token_ids} == {int}
    assert from_prompt([True], "m", "id", SAMPLING).request.prompt_token_ids == [1]
    with pytest.raises(InvalidRequest, match="prompts must be a string, token ids, a dict"):
        prompt_list(b"ab")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (["hi"], "messages[0]"),
        ([None], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": "x"}, {"role": 5, "content": "x"}], "messages[1].role"),
    ],
)
def test_what_is_no_message_is_refused(messages: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_messages(messages, "m", "id", SAMPLING)
    assert caught.value.param == param


@pytest.mark.parametrize("url", ["in-memory:x", "in-memory:0", "in-memory:7"])
def test_an_address_cannot_name_another_item_of_the_request(url: str) -> None:
    content = [{"type": "image_url", "image_url": url}]
    parsed = from_messages([{"role": "user", "content": content}], "m", "id", SAMPLING)
    assert [source.url for source in parsed.sources] == [url]  # fetched, and refused there


@pytest.mark.parametrize("messages", ["hi", {"role": "user", "content": "hi"}, None, 5])
def test_what_is_no_conversation_is_refused(messages: Any) -> None:
    with LLM("fake", _loader=FakeModel.load) as llm:
        with pytest.raises(InvalidRequest, match="messages must be a list"):
            llm.chat(messages, SAMPLING, use_tqdm=False)
        with pytest.raises(InvalidRequest, match="messages must be a list"):
            list(llm.stream(messages, SAMPLING))


def test_a_conversation_s_processor_options_are_checked() -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_messages(
            [{"role": "user", "content": "x"}], "m", "id", SamplingParams(), mm_processor_kwargs={"fps": "two"}
        )
    assert caught.value.param == "mm_processor_kwargs.fps"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1.5),
        ("n", "2"),
        ("temperature", "1"),
        ("top_k", 5.0),
        ("max_tokens", "16"),
        ("logprobs", [1]),
        ("stop", 5),
        ("stop", ["a", 5]),
        ("stop", b"a"),
        ("stop_token_ids", 5),
        ("stop_token_ids", ["<|im_end|>"]),
        ("bad_words", [["a"]]),
        ("bad_words", ["a"] * 1025),
        ("bad_words", ["a" * 1001]),
        ("logit_bias", 5),
        ("logit_bias", [1.0]),
        ("logit_bias", {"a": 1.0}),
        ("logit_bias", {5: "1"}),
        ("logit_bias", {5: float("nan")}),
        ("logit_bias", {5: float("inf")}),
    ],
)
def test_sampling_parameters_of_a_wrong_type_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name


def test_sampling_parameters_as_programs_for_vllm_write_them() -> None:
    # Tokens that a vocabulary lacks have the id None; JSON has strings for keys.
    made = SamplingParams(
        stop_token_ids=[None, np.int64(3)], bad_words="no", logit_bias={"5": 1}, max_tokens=np.int64(4)
    )
    assert (made.stop_token_ids, made.bad_words, made.logit_bias) == ((3,), ("no",), {5: 1})
