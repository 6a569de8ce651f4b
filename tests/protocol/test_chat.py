from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import InvalidRequest
from sensorium.protocol import fields as fields_of_protocol
from sensorium.protocol.body import parse_body
from sensorium.protocol.chat import ChatBody, parse_chat
from sensorium.protocol.fields import REFUSED, SAMPLING
from sensorium.protocol.parsed import Parsed, combined_salt
from sensorium.types import MediaSlot, Message, SamplingParams, Text
from sensorium.worker.frames import Generate, encode, to_worker


def parse(**fields: Any) -> Parsed:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    return parse_chat(parse_body(ChatBody, json.dumps(body).encode()), "m", "id")


def parsed_or_refused(**fields: Any) -> Parsed | None:
    try:
        return parse(**fields)
    except InvalidRequest:
        return None


def test_order_of_parts_roles_and_extras() -> None:
    parsed = parse(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}, {"image_url": "http://i"}, "b"]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "refusal": None, "annotations": []},
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "refusal", "refusal": "no"}]},
            {
                "role": "user",
                "content": [{"type": "audio_url", "audio_url": {"url": "http://a"}}, {"type": "text", "text": ""}],
            },
        ]
    )
    assert parsed.request.messages == (
        Message("system", (Text("be brief"),)),
        Message("user", (Text("a"), MediaSlot("image", 0), Text("b")), {"name": "ann"}),
        Message("assistant", (), {"tool_calls": [{"id": "1"}]}),
        Message("tool", (Text("no"),), {"tool_call_id": "1"}),
        Message("user", (MediaSlot("audio", 1),)),
    )
    assert [(source.kind, source.url, source.where) for source in parsed.sources] == [
        ("image", "http://i", "messages[1].content[1].image_url"),
        ("audio", "http://a", "messages[4].content[0].audio_url"),
    ]


def test_input_audio_becomes_a_data_url() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    (source,) = parse(messages=[{"role": "user", "content": [part]}]).sources
    assert (source.kind, source.url) == ("audio", "data:audio/wav;base64,AAAA")


def test_every_sampling_field_arrives() -> None:
    values = {
        "n": 2,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": -1,
        "frequency_penalty": 1,
        "seed": 5,
        "stop": "x",
        "stop_token_ids": [1],
        "bad_words": ["y"],
        "logit_bias": {"3": -100},
        "ignore_eos": True,
        "min_tokens": 1,
        "max_tokens": 9,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "include_stop_str_in_output": True,
    }
    assert set(values) == {*SAMPLING, "logit_bias"}
    wanted = {**values, "logit_bias": {3: -100.0}, "logprobs": 4}
    assert parse(**values, logprobs=True, top_logprobs=4).request.sampling == SamplingParams(**wanted)


def test_generation_prompt() -> None:
    assert parse().request.add_generation_prompt
    continued = parse(continue_final_message=True).request
    assert (continued.add_generation_prompt, continued.continue_final_message) == (False, True)
    assert not parse(add_generation_prompt=False).request.add_generation_prompt


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - ChatBody.model_fields.keys()))
def test_refused_by_name(name: str) -> None:
    for quiet in (None, [], {}, *REFUSED[name]):
        parse(**{name: quiet})
    with pytest.raises(InvalidRequest) as caught:
        parse(**{name: "something"})
    assert caught.value.param == name
    assert f"`{name}` is not supported by this server" in caught.value.message


@pytest.mark.parametrize("name", ["length_penalty", "use_beam_search", "num_beams", "early_stopping", "best_of"])
def test_beams_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"does not search with beams|draws several answers"):
        parse(**{name: 3})


def test_unknown_fields_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    parse(a_field_nobody_knows=1)
    parse(a_field_nobody_knows=2)
    assert caplog.text.count("a_field_nobody_knows") == 1


def test_what_is_remembered_of_unknown_fields_is_short() -> None:
    parse(**{"x" * 1_000_000: 1})
    assert max(map(len, fields_of_protocol._logged)) <= 80


@pytest.mark.parametrize("key", ["1" * 5000, "4294967296", "-1", "²", "1.0", ""])
def test_biases_of_what_is_no_token(key: str) -> None:
    with pytest.raises(InvalidRequest, match="keys are token ids") as caught:
        parse(logit_bias={key: 1})
    assert caught.value.param == "logit_bias"


def test_salts_divide() -> None:
    salts = {combined_salt(key, salt) for key in ("", "k", "l") for salt in (None, "a", "b")}
    assert len(salts) == 9
    assert combined_salt("k", "") == "k"


numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=5))
anything = st.recursive(
    numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
FIELDS = sorted({*ChatBody.model_fields, *REFUSED})


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4))
def test_any_json_is_parsed_or_refused_and_crosses_to_the_worker(fields: dict[str, Any]) -> None:
    parsed = parsed_or_refused(**fields)
    if parsed is not None:
        frame = Generate(parsed.request)
        assert to_worker.decode(encode(frame)[4:]) == frame


part = st.fixed_dictionaries(
    {}, optional={"type": anything, "text": anything, "image_url": anything, "input_audio": anything}
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "x", None])},
    optional={"content": anything | st.lists(part, max_size=3), "name": anything, "tool_calls": anything},
)


@settings(max_examples=200)
@given(st.lists(message, max_size=3) | anything)
def test_any_messages(messages: Any) -> None:
    parsed = parsed_or_refused(messages=messages)
    if parsed is not None:
        slots = [
            part for message in parsed.request.messages or () for part in message.content if isinstance(part, MediaSlot)
        ]
        assert [slot.index for slot in slots] == list(range(len(parsed.sources)))
        frame = Generate(parsed.request)
        assert to_worker.decode(encode(frame)[4:]) == frame
