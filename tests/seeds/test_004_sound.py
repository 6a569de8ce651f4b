"""Seed 004, qwen2-audio-7b-instruct: sounds in `audios` and in audio_url parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensorium.llm import convert_to_base64
from tests.e2e.running import Running
from tests.seeds.serving import FILES, deployed
from tests.seeds.wire import Seen, converse, encoded, parts, post, said, seen_as_parts, stream, swift

MODEL = "qwen2-audio-7b-instruct"
ASK = "这段语音说了什么"
FOLLOW = "这段语音是男生还是女生"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(MODEL, tmp_path_factory.mktemp("s004")) as started:
        yield started


def test_rows_38_and_43_swift_client(running: Running, media: str) -> None:
    query = "<audio>" + ASK
    url = f"{media}/weather.wav"
    for audio in (url, encoded("weather.wav"), f"data:audio/wav;base64,{encoded('weather.wav')}"):
        seen_as_parts(running, swift(MODEL, query, audios=[audio]), parts(("audio", url), ASK))
    other = swift(MODEL, query, audios=[f"{media}/other.wav"])
    assert Seen(running, other) != Seen(running, swift(MODEL, query, audios=[url]))
    answer = said(post(running, swift(MODEL, query, audios=[url], temperature=0)))
    follow = swift(MODEL, FOLLOW, [(query, answer)], audios=[url], temperature=0)
    assert stream(running, follow | {"stream": True}) == said(post(running, follow))
    seen_as_parts(
        running,
        follow,
        parts(("audio", url), ASK),
        {"role": "assistant", "content": answer},
        {"role": "user", "content": FOLLOW},
    )


def test_rows_27_and_38_the_program_with_swifts_client(running: Running, media: str, tmp_path: Path) -> None:
    query = "<audio>" + ASK
    sound = {"audios": [f"{media}/weather.wav"]}
    model, response, streamed = converse(running, query, FOLLOW, sound, sound, temperature=0)
    assert model == MODEL
    assert response == said(post(running, swift(MODEL, query, **sound, temperature=0)))
    assert streamed == said(post(running, swift(MODEL, FOLLOW, [(query, response)], **sound, temperature=0)))
    (tmp_path / "weather.wav").write_bytes(FILES["weather.wav"])
    local = {"audios": convert_to_base64(images=[str(tmp_path / "weather.wav")])["images"]}
    assert converse(running, query, FOLLOW, local, local, temperature=0) == (model, response, streamed)


def test_row_39_openai_client(running: Running, media: str) -> None:
    client = running.client()
    model = client.models.list().data[0].id
    for url in (f"{media}/weather.wav", f"data:audio/wav;base64,{encoded('weather.wav')}"):
        messages: list[Any] = [parts(("audio", url), ASK)]
        answer = client.chat.completions.create(model=model, messages=messages, temperature=0)
        text = answer.choices[0].message.content
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": FOLLOW}]
        chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True, temperature=0))
        assert all(isinstance(chunk.choices[0].delta.content, str) for chunk in chunks)
