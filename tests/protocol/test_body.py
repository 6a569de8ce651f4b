from __future__ import annotations

import math

import pytest

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import MAX_VALUES, check_plain, field_path, parse_body
from sensorium.protocol.chat import ChatBody
from sensorium.types import SamplingParams


def test_field_path() -> None:
    assert field_path(("messages", 0, "content", 1, "image_url", "url")) == "messages[0].content[1].image_url.url"
    assert field_path((3, "role")) == "[3].role"
    assert field_path(()) == ""


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"messages": [], "top_p": "x"}', "`top_p` must be a number, not a string."),
        (b'{"messages": [], "n": 1.5}', "`n` must be an integer, not a number."),
        (b'{"messages": [], "stream": "yes"}', "`stream` must be true or false, not a string."),
        (b'{"messages": {}}', "`messages` must be a list, not an object."),
        (b'{"messages": [null]}', "`messages[0]` must be an object, not null."),
        (b"[]", "The request's body must be an object, not a list."),
        (b'{"a":\n  }', "The request's body is not valid JSON at line 2, column 3."),
        (b'{"messages": [], "stop_token_ids": [-1]}', "`stop_token_ids[0]` must be at least 0."),
    ],
)
def test_one_plain_sentence(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_body(ChatBody, raw)
    assert caught.value.message == message


def test_bodies_that_would_fill_the_memory() -> None:
    with pytest.raises(InvalidRequest, match="2,000,000"):
        parse_body(ChatBody, b'{"x": [' + b"[]," * MAX_VALUES + b"[]]}")
    with pytest.raises(InvalidRequest):
        parse_body(ChatBody, b'{"messages": [], "n": 1' + b"0" * 1_000_000 + b"}")


def test_what_other_processes_could_not_read() -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    for wrong in (deep, {"a": [1 << 64]}, -(1 << 63) - 1, [math.nan], math.inf):
        with pytest.raises(InvalidRequest) as caught:
            check_plain(wrong, "kwargs")
        assert caught.value.param == "kwargs"
    check_plain({"a": [1, None, True, "x", {"b": (1 << 64) - 1}]}, "kwargs")


def test_bounds_are_written_as_numbers_that_can_be_used() -> None:
    with pytest.raises(InvalidRequest, match=r"between 1 and 2147483648\."):
        SamplingParams(max_tokens=0)
    with pytest.raises(InvalidRequest, match=r"between 0 and 1\."):
        SamplingParams(min_p=2)


def test_a_body_with_very_many_mistakes_is_refused_without_listing_them() -> None:
    raw = b'{"messages": [], "stop_token_ids": [' + b'"a",' * 20_000 + b"1]}"
    with pytest.raises(InvalidRequest, match="has 20,000 values that are not valid"):
        parse_body(ChatBody, raw)  # listed, each would take a kilobyte and 15 microseconds
