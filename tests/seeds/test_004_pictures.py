"""Seed 004, yi-vl-6b-chat and minicpm-v-v2_5-chat: pictures in `images`, with <image> tags or without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.running import Running
from tests.seeds.serving import deployed
from tests.seeds.wire import Seen, converse, encoded, parts, post, said, seen_as_parts, stream, swift

CURL = """{
"model": "MODEL",
"messages": [{"role": "user", "content": "描述这张图片"}],
"temperature": 0,
"images": ["BASE/cat.png"]
}"""
FIRST = "描述这张图片"


@dataclass
class Chat:
    """A server, its model, and the picture of the first round."""

    running: Running
    model: str
    cat: str
    animal: str


@pytest.fixture(scope="module", params=["yi-vl-6b-chat", "minicpm-v-v2_5-chat"])
def chat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, media: str) -> Iterator[Chat]:
    with deployed(request.param, tmp_path_factory.mktemp("s004")) as started:
        yield Chat(started, request.param, f"{media}/cat.png", f"{media}/animal.png")


def test_row_33_curl_without_a_tag(chat: Chat, media: str) -> None:
    text = said(post(chat.running, CURL.replace("MODEL", chat.model).replace("BASE", media)))
    body = {"model": chat.model, "messages": [parts(("image", chat.cat), FIRST)], "temperature": 0}
    assert said(post(chat.running, body)) == text


def test_rows_27_and_34_the_program_with_swifts_client(chat: Chat) -> None:
    query, follow = "<image>" + FIRST, "<image>图中有几只羊"
    cat, both = {"images": [chat.cat]}, {"images": [chat.cat, chat.animal]}
    model, response, streamed = converse(chat.running, query, follow, cat, both, temperature=0)
    assert model == chat.model
    assert response == said(post(chat.running, swift(chat.model, query, **cat, temperature=0)))
    assert streamed == said(post(chat.running, swift(chat.model, follow, [(query, response)], **both, temperature=0)))


def test_row_34_swift_client_a_picture_each_round(chat: Chat) -> None:
    query = "<image>" + FIRST
    body = swift(chat.model, query, images=[chat.cat], temperature=0)
    answer = said(post(chat.running, body))
    seen_as_parts(chat.running, body, parts(("image", chat.cat), FIRST))
    both = [chat.cat, chat.animal]
    follow = swift(chat.model, "<image>图中有几只羊", [(query, answer)], images=both, temperature=0)
    assert stream(chat.running, follow | {"stream": True}) == said(post(chat.running, follow))
    turns = [parts(("image", chat.cat), FIRST), {"role": "assistant", "content": answer}]
    seen = seen_as_parts(chat.running, follow, *turns, parts(("image", chat.animal), "图中有几只羊"))
    assert seen != Seen(chat.running, follow | {"images": both[::-1]})


def test_rows_35_and_37_openai_client(chat: Chat) -> None:
    client = chat.running.client()
    model = client.models.list().data[0].id
    for second in (parts(("image", chat.animal), "图中有几只羊"), {"role": "user", "content": "这张图是如何产生的？"}):
        messages: list[Any] = [parts(("image", chat.cat), FIRST)]
        answer = client.chat.completions.create(model=model, messages=messages, temperature=0)
        messages += [{"role": "assistant", "content": answer.choices[0].message.content}, second]
        chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True, temperature=0))
        assert all(isinstance(chunk.choices[0].delta.content, str) for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_row_36_swift_client_the_follow_up_has_no_tag(chat: Chat) -> None:
    query = "<image>" + FIRST
    answer = said(post(chat.running, swift(chat.model, query, images=[chat.cat], temperature=0)))
    follow = swift(chat.model, "这张图是如何产生的？", [(query, answer)], images=[chat.cat], temperature=0)
    turns = [parts(("image", chat.cat), FIRST), {"role": "assistant", "content": answer}]
    seen_as_parts(chat.running, follow, *turns, {"role": "user", "content": "这张图是如何产生的？"})
    cat = {"images": [chat.cat]}
    program = converse(chat.running, query, "这张图是如何产生的？", cat, cat, temperature=0)
    assert program == (chat.model, answer, said(post(chat.running, follow)))


def test_row_43_raw_base64_in_images(chat: Chat) -> None:
    body = swift(chat.model, "<image>" + FIRST, images=[encoded("cat.png")], temperature=0)
    seen_as_parts(chat.running, body, parts(("image", chat.cat), FIRST))
