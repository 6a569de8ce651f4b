"""Videos and sounds in messages: the forms clients write, and what may stand beside them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import parse_body
from sensorium.protocol.chat import ChatBody, parse_chat
from sensorium.types import MediaOptions, MediaSource

HERE = "messages[0].content[0]"
URL = "http://x/v.mp4"


def sources(*parts: Any, **fields: Any) -> tuple[MediaSource, ...]:
    body = {"messages": [{"role": "user", "content": list(parts)}], **fields}
    return parse_chat(parse_body(ChatBody, json.dumps(body).encode()), "m", "id").sources


def refused(*parts: Any, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        sources(*parts, **fields)
    return caught.value


@pytest.mark.parametrize(
    ("part", "kind", "name"),
    [
        ({"type": "video_url", "video_url": {"url": URL}}, "video", "video_url"),
        ({"type": "video_url", "video_url": URL}, "video", "video_url"),
        ({"video_url": URL}, "video", "video_url"),
        ({"type": "video", "video": URL}, "video", "video"),
        ({"video": {"url": URL}}, "video", "video"),
        ({"type": "audio_url", "audio_url": {"url": URL}}, "audio", "audio_url"),
        ({"type": "audio", "audio": URL}, "audio", "audio"),
        ({"type": "audio", "audio_url": URL}, "audio", "audio_url"),
        ({"type": "image", "image": URL}, "image", "image"),
        ({"image": URL}, "image", "image"),
    ],
)
def test_spellings(part: Any, kind: Any, name: str) -> None:
    assert sources(part) == (MediaSource(kind, URL, f"{HERE}.{name}"),)


@pytest.mark.parametrize("part", [{"type": "video", "video": ["http://a", {"url": "http://b"}]}, None])
def test_a_list_of_frames(part: Any) -> None:
    part = part or {"type": "video_url", "video_url": {"url": ["http://a", "http://b"]}, "fps": 4}
    (source,) = sources(part)
    assert (source.url, source.frames) == ("", ("http://a", "http://b"))
    assert source.options == MediaOptions(fps=4.0 if "fps" in part else None)
    for bad, path in (([], ""), (["http://a", 5], "[1]"), (["http://a", " "], "[1]")):
        assert refused({"type": "video", "video": bad}).param == f"{HERE}.video{path}"
    assert refused({"type": "image_url", "image_url": ["http://a"]}).param == f"{HERE}.image_url"


def test_input_audio_takes_base64_and_data_urls() -> None:
    for data, url in (("AAAA", "data:audio/mp3;base64,AAAA"), ("data:audio/x;base64,BBBB",) * 2):
        part = {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
        assert sources(part) == (MediaSource("audio", url, f"{HERE}.input_audio"),)


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ({"video_url": {"url": URL, "fps": 1, "max_frames": 9}}, MediaOptions(fps=1.0, max_frames=9)),
        ({"video_url": {"url": URL}, "fps": 0.5, "end": 3}, MediaOptions(fps=0.5, end=3.0)),
        (
            {"video_url": {"url": URL, "nframes": 8}, "video_start": 1, "video_end": 2.5},
            MediaOptions(None, 8, None, 1, 2.5),
        ),
        ({"video_url": {"url": URL, "fps": None}, "num_frames": 8}, MediaOptions(num_frames=8)),
        ({"audio_url": URL, "start": 0, "end": 10}, MediaOptions(start=0.0, end=10.0)),
        ({"input_audio": {"data": "AAAA", "format": "wav", "start": 2}}, MediaOptions(start=2.0)),
    ],
)
def test_options_beside_the_url_or_in_its_object(part: Any, options: MediaOptions) -> None:
    assert sources(part)[0].options == options


@pytest.mark.parametrize(
    ("more", "path", "words"),
    [
        ({"fps": 0}, "fps", "above 0"),
        ({"fps": "2"}, "fps", "a number, not a string"),
        ({"fps": True}, "fps", "a number, not a boolean"),
        ({"fps": 1e9}, "fps", "at most 1000"),
        ({"num_frames": 2.5}, "num_frames", "a whole number"),
        ({"num_frames": 0}, "num_frames", "at least 1"),
        ({"max_frames": -1}, "max_frames", "at least 1"),
        ({"fps": 1, "num_frames": 4}, "num_frames", "exclude each other"),
        ({"num_frames": 4, "nframes": 4}, "nframes", "say the same"),
        ({"start": -1}, "start", "at least 0"),
        ({"start": 3, "end": 3}, "end", "more than the start"),
        ({"video_end": 0}, "video_end", "above 0"),
        ({"max_pixels": 100}, "max_pixels", "mm_processor_kwargs"),
        ({"min_frames": 4}, "min_frames", "mm_processor_kwargs"),
    ],
)
def test_wrong_options_name_their_place(more: dict[str, Any], path: str, words: str) -> None:
    beside = refused({"type": "video_url", "video_url": {"url": URL}, **more})
    assert (beside.param, words in beside.message) == (f"{HERE}.{path}", True)
    inside = refused({"type": "video_url", "video_url": {"url": URL, **more}})
    assert (inside.param, words in inside.message) == (f"{HERE}.video_url.{path}", True)


def test_options_apply_to_their_kind_only() -> None:
    assert refused({"audio_url": URL, "fps": 1}).message == f"`{HERE}.fps` does not apply to audio input; leave it out."
    assert refused({"image_url": URL, "start": 1}).param == f"{HERE}.start"
    assert refused({"video_url": {"url": URL, "fps": 1}, "fps": 1}).param == f"{HERE}.video_url.fps"


def test_options_of_the_whole_request() -> None:
    def kwargs(**given: Any) -> Any:
        body = {"messages": [{"role": "user", "content": "x"}], "mm_processor_kwargs": given}
        return parse_chat(parse_body(ChatBody, json.dumps(body).encode()), "m", "id").request.mm_processor_kwargs

    assert kwargs(fps=2, max_pixels=5) == {"fps": 2.0, "max_pixels": 5}
    for wrong, name in (
        ({"fps": -1}, "fps"),
        ({"num_frames": "4"}, "num_frames"),
        ({"fps": 1, "num_frames": 2}, "num_frames"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            kwargs(**wrong)
        assert caught.value.param == f"mm_processor_kwargs.{name}"


anything = st.recursive(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["url", "fps", "end"]), inner),
)
names = st.sampled_from(
    ["type", "video", "video_url", "audio", "audio_url", "input_audio", "fps", "nframes", "start", "end", "max_frames"]
)
kinds = st.sampled_from(["video", "video_url", "audio", "audio_url", "input_audio", "image"])


@settings(max_examples=150)
@given(st.dictionaries(names, anything | kinds, max_size=5))
def test_any_part_is_read_or_refused_with_a_path(part: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequest):
        assert len(sources(part)) <= 1
        return
    assert (refused(part).param or "").startswith(HERE)
