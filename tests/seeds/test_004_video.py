"""Seed 004, internvl2-2b and minicpm-v-v2_6-chat: a video in `videos` and in a video_url part, then a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.running import Running
from tests.seeds.serving import deployed
from tests.seeds.wire import converse, encoded, parts, post, said, seen_as_parts, stream, swift


@pytest.fixture(scope="module", params=["internvl2-2b", "minicpm-v-v2_6-chat"])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(model, tmp_path_factory.mktemp("s004")) as started:
        yield started


def test_rows_27_and_40_the_program_with_swifts_client(running: Running, model: str, media: str) -> None:
    query, follow = "<video>描述这段视频", "<image>图中有几只羊"
    video, both = (
        {"videos": [f"{media}/baby.mp4"]},
        {"videos": [f"{media}/baby.mp4"], "images": [f"{media}/animal.png"]},
    )
    name, response, streamed = converse(running, query, follow, video, both, temperature=0)
    assert name == model
    assert response == said(post(running, swift(model, query, **video, temperature=0)))
    assert streamed == said(post(running, swift(model, follow, [(query, response)], **both, temperature=0)))


def test_rows_40_and_43_swift_client(running: Running, model: str, media: str) -> None:
    url = f"{media}/baby.mp4"
    for video in (url, encoded("baby.mp4"), f"data:video/mp4;base64,{encoded('baby.mp4')}"):
        body = swift(model, "<video>描述这段视频", videos=[video], temperature=0)
        seen_as_parts(running, body, parts(("video", url), "描述这段视频"))
    said(post(running, body))
    picture = f"{media}/animal.png"
    follow = swift(model, "<image>图中有几只羊", images=[picture], temperature=0)
    assert stream(running, follow | {"stream": True}) == said(post(running, follow))
    seen_as_parts(running, follow, parts(("image", picture), "图中有几只羊"))


def test_row_41_openai_client(running: Running, model: str, media: str) -> None:
    client = running.client()
    for url in (f"{media}/baby.mp4", f"data:video/mp4;base64,{encoded('baby.mp4')}"):
        messages: list[Any] = [parts(("video", url), "描述这段视频")]
        answer = client.chat.completions.create(model=model, messages=messages, temperature=0)
        assert isinstance(answer.choices[0].message.content, str)
    messages = [parts(("image", f"{media}/animal.png"), "图中有几只羊")]
    chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True, temperature=0))
    assert all(isinstance(chunk.choices[0].delta.content, str) for chunk in chunks)


def test_tags_of_two_kinds_in_one_string(running: Running, model: str, media: str) -> None:
    clip, picture = f"{media}/baby.mp4", f"{media}/animal.png"
    body = swift(model, f"<video>{clip}</video>和<img>{picture}</img>", temperature=0)
    seen_as_parts(running, body, parts(("video", clip), "和", ("image", picture)))
