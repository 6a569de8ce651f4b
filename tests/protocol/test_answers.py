from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion

from sensorium.errors import ModelUnavailable, Overloaded, WorkerDied
from sensorium.protocol import sse
from sensorium.protocol.chat_answer import ChatAnswer
from sensorium.protocol.completions_answer import CompletionAnswer
from sensorium.protocol.logprobs import text_logprobs
from sensorium.protocol.usage import prompt_details
from sensorium.types import Delta, Event, MediaUse, PositionLogprobs, Started, TokenLogprob

EVENTS: list[Event] = [
    Started("r", 7),
    Delta("r", 0, "He", [1], num_cached_tokens=4),
    Delta("r", 1, "", [2]),  # held back
    Delta("r", 1, "Yo", [3], finish_reason="length"),
    Delta("r", 0, "", [4], finish_reason="stop", stop_reason=4),
]


def events_of(data: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in data.decode().split("\n\n") if line and line != "data: [DONE]"]


@pytest.mark.parametrize("kind", [ChatAnswer, CompletionAnswer])
def test_the_fold_equals_the_stream(kind: type[ChatAnswer] | type[CompletionAnswer]) -> None:
    streamed, folded = kind("i", "m", 1, 2, include_usage=True), kind("i", "m", 1, 2)
    data = b"".join(streamed.chunk(event) for event in EVENTS) + streamed.end()
    for event in EVENTS:
        folded.add(event)
    whole = json.loads(msgspec.json.encode(folded.body()))
    chunks = events_of(data)
    for index, text in enumerate(["He", "Yo"]):
        mine = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert "".join(choice["delta"]["content"] if "delta" in choice else choice["text"] for choice in mine) == text
        final = whole["choices"][index]
        assert (final["message"]["content"] if "message" in final else final["text"]) == text
        assert [mine[-1][name] for name in ("finish_reason", "stop_reason")] == [
            final[name] for name in ("finish_reason", "stop_reason")
        ]
    assert chunks[-1]["usage"] == whole["usage"]
    assert whole["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 4,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert data.endswith(sse.DONE)


MEDIA = (
    MediaUse("image", "messages[0].content[0].image_url", 3, 64, (480, 640), (448, 644)),
    MediaUse("video", "messages[0].content[1].video_url", 70, 32, (90, 120), timestamps=(0.0, 1 / 3, 2.0)),
    MediaUse("audio", "messages[2].content[0].input_audio", 110, 25, seconds=1.00006),
    MediaUse("image", "messages[2].content[1].image_url", 140, 16, (30, 40)),
)
DETAILS = {
    "cached_tokens": 4,
    "audio_tokens": 25,
    "multimodal_tokens": {"image": 80, "video": 32, "audio": 25},
    "media": [
        {
            "type": "image",
            "where": "messages[0].content[0].image_url",
            "tokens": 64,
            "width": 640,
            "height": 480,
            "resized_width": 644,
            "resized_height": 448,
        },
        {
            "type": "video",
            "where": "messages[0].content[1].video_url",
            "tokens": 32,
            "width": 120,
            "height": 90,
            "frames": 3,
            "timestamps": [0.0, 0.333, 2.0],
        },
        {"type": "audio", "where": "messages[2].content[0].input_audio", "tokens": 25, "seconds": 1.0},
        {"type": "image", "where": "messages[2].content[1].image_url", "tokens": 16, "width": 40, "height": 30},
    ],
}


@pytest.mark.parametrize("kind", [ChatAnswer, CompletionAnswer])
def test_media_are_itemised_once(kind: type[ChatAnswer] | type[CompletionAnswer]) -> None:
    """In one piece, and streamed: the list in the last chunk only, since a stream has many."""
    events = [Started("r", 156, media=MEDIA), *EVENTS[1:]]
    folded = kind("i", "m", 1, 2)
    for event in events:
        folded.add(event)
    assert json.loads(msgspec.json.encode(folded.body()))["usage"]["prompt_tokens_details"] == DETAILS
    streamed = kind("i", "m", 1, 2, include_usage=True, running_usage=True)
    chunks = events_of(b"".join(streamed.chunk(event) for event in events) + streamed.end())
    assert chunks[-1]["usage"]["prompt_tokens_details"] == DETAILS
    for chunk in chunks[:-1]:
        assert chunk["usage"]["prompt_tokens_details"].keys() == DETAILS.keys() - {"media"}


def test_openais_own_model_reads_the_details() -> None:
    answer = ChatAnswer("i", "m", 1, 2)
    for event in [Started("r", 156, media=MEDIA), *EVENTS[1:]]:
        answer.add(event)
    parsed = ChatCompletion.model_validate_json(msgspec.json.encode(answer.body()), strict=True)
    assert parsed.usage is not None
    details = parsed.usage.prompt_tokens_details
    assert details is not None
    assert (details.cached_tokens, details.audio_tokens) == (4, 25)
    assert details.model_extra == {name: DETAILS[name] for name in ("multimodal_tokens", "media")}


def test_what_an_engine_cannot_tell_is_left_out() -> None:
    details = prompt_details(0, [MediaUse("image", "prompt", size=(3, 4))], itemised=True)
    assert json.loads(msgspec.json.encode(details)) == {
        "cached_tokens": 0,
        "media": [{"type": "image", "where": "prompt", "width": 4, "height": 3}],
    }


def test_a_long_video_takes_little_room() -> None:
    video = MediaUse("video", "prompt", 0, 9000, (720, 1280), timestamps=tuple(i / 2.9 for i in range(256)))
    assert len(msgspec.json.encode(prompt_details(0, [video], itemised=True))) < 2500


@pytest.mark.parametrize("kind", [ChatAnswer, CompletionAnswer])
def test_an_open_choice_is_not_an_answer(kind: type[ChatAnswer] | type[CompletionAnswer]) -> None:
    answer = kind("i", "m", 1, 2)
    for event in EVENTS[:-1]:
        answer.add(event)
    with pytest.raises(WorkerDied):
        answer.body()
    with pytest.raises(WorkerDied):
        answer.end()
    with pytest.raises(ModelUnavailable):
        answer.chunk(Delta("r", 0, "", finish_reason="abort"))


def test_minus_infinity_is_a_number() -> None:
    never = TokenLogprob(1, "a", -math.inf, 9)
    answer = ChatAnswer("i", "m", 1, logprobs=True)
    answer.add(Delta("r", 0, "a", [1], [PositionLogprobs(never, [never])], "stop"))
    (entry,) = json.loads(msgspec.json.encode(answer.body()))["choices"][0]["logprobs"]["content"]
    assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] == -9999.0


def test_half_a_character_has_its_own_bytes() -> None:
    half = TokenLogprob(1, "\ufffd", -1.0, 1, b"\xe4\xbd")
    answer = ChatAnswer("i", "m", 1)
    (chunk,) = events_of(answer.chunk(Delta("r", 0, "", [1], [PositionLogprobs(half)])))
    assert chunk["choices"][0]["logprobs"]["content"][0]["bytes"] == [0xE4, 0xBD]
    assert chunk["choices"][0]["delta"]["content"] == ""


def test_tokens_that_read_alike_keep_the_likeliest() -> None:
    chosen, other = TokenLogprob(1, "\ufffd", -0.5, 1, b"\xe4"), TokenLogprob(2, "\ufffd", -3.0, 2, b"\xe5")
    form = text_logprobs([PositionLogprobs(chosen, [chosen, other])], 0)
    assert form.top_logprobs == [{"\ufffd": -0.5}]


def test_events_are_one_line_each() -> None:
    data = sse.event({"text": "a\r\nb\n\ndata: [DONE]\u2028"})
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    assert data.count(b"\n") == 2
    assert b"\r" not in data
    (error,) = events_of(sse.error_event(Overloaded("Full.")))
    assert (error["object"], error["error"]["type"], error["message"]) == ("error", "overloaded_error", "Full.")
