"""Seed 004, qwen-vl-chat: pictures in <img> tags of strings, and in OpenAI's parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensorium.llm import convert_to_base64
from tests.e2e.running import Running
from tests.seeds.serving import deployed
from tests.seeds.wire import converse, encoded, parts, post, said, seen_as_parts, stream, swift

MODEL = "qwen-vl-chat"
ASK = "图中是什么花，有几只？"
BOXES = "框出图中的花"
CURL = """{
"model": "qwen-vl-chat",
"messages": [{"role": "user", "content": "<img>BASE/rose.jpg</img>图中是什么花，有几只？"}],
"max_tokens": 256,
"temperature": 0
}"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Iterator[Running]:
    with deployed(MODEL, tmp_path_factory.mktemp("s004"), "--allowed-local-media-path", str(pictures)) as started:
        yield started


def test_row_30_curl_with_a_tag_in_a_string(running: Running, media: str) -> None:
    text = said(post(running, CURL.replace("BASE", media)))
    same = {"model": MODEL, "messages": [parts(("image", f"{media}/rose.jpg"), ASK)], "max_tokens": 256}
    assert said(post(running, same | {"temperature": 0})) == text


@pytest.mark.parametrize("form", ["url", "base64", "data URL", "path"])
def test_rows_31_and_43_swift_client_with_every_kind_of_address(running: Running, media: str, form: str) -> None:
    url = f"{media}/rose.jpg"
    data = encoded("rose.jpg")
    given = {"url": url, "base64": data, "data URL": f"data:image/jpeg;base64,{data}", "path": "rose.jpg"}[form]
    query = f"<img>{given}</img>{ASK}"
    seen_as_parts(running, swift(MODEL, query), parts(("image", url), ASK))


def test_rows_27_and_31_the_program_with_swifts_client(running: Running, media: str, pictures: Path) -> None:
    queries = [f"<img>{given}</img>{ASK}" for given in (f"{media}/rose.jpg", pictures / "rose.jpg")]
    model, response, streamed = converse(running, queries[0], BOXES, seed=42)
    assert model == MODEL
    assert response == said(post(running, swift(MODEL, queries[0], seed=42)))
    assert streamed == said(post(running, swift(MODEL, BOXES, [(queries[0], response)], seed=42)))
    assert converse(running, queries[1], BOXES, seed=42) == (model, response, streamed)  # a file of the client's


def test_row_31_swift_client_two_rounds_streamed(running: Running, media: str) -> None:
    query = f"<img>{media}/rose.jpg</img>{ASK}"
    answer = said(post(running, swift(MODEL, query, seed=42)))
    follow = swift(MODEL, BOXES, [(query, answer)], seed=42)
    assert stream(running, follow | {"stream": True}) == said(post(running, follow))
    turns: list[Any] = [parts(("image", f"{media}/rose.jpg"), ASK), {"role": "assistant", "content": answer}]
    seen_as_parts(running, follow, *turns, {"role": "user", "content": BOXES})


def test_row_31_boxes_in_the_history_stay_text(running: Running, media: str) -> None:
    query = f"<img>{media}/rose.jpg</img>{ASK}"
    boxes = "<ref>花</ref><box>(34,449),(368,981)</box>"
    body = swift(MODEL, "再来", [(query, boxes)])
    tokens = post(running, body, "/tokenize")["tokens"]
    assert boxes in post(running, {"tokens": tokens}, "/detokenize")["prompt"]


def test_row_32_openai_client_list_then_string_streamed(running: Running, media: str, pictures: Path) -> None:
    client = running.client()
    model = client.models.list().data[0].id
    base64 = convert_to_base64(images=[str(pictures / "rose.jpg")])["images"][0]
    assert f"data:image/jpeg;base64,{base64}" == f"data:image/jpeg;base64,{encoded('rose.jpg')}"
    messages: list[Any] = [parts(("image", f"{media}/rose.jpg"), ASK)]
    answer = client.chat.completions.create(model=model, messages=messages, seed=42).choices[0].message.content
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": BOXES}]
    chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True, seed=42))
    assert all(isinstance(chunk.choices[0].delta.content, str) for chunk in chunks)
    whole = client.chat.completions.create(model=model, messages=messages, seed=42).choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


@pytest.mark.parametrize(
    ("query", "fields", "param", "words"),
    [
        ("<img>BASE/rose.jpg 图", {}, "messages[0].content", "no </img> behind"),
        ("<image><image>图", {"images": ["BASE/rose.jpg"]}, "messages[0].content", "2 <image> tags and `images` has 1"),
        ("<img>no picture at all</img>", {}, "messages[0].content.<img>[0]", "no http(s), data or file URL, no path"),
        ("图", {"images": ["/9j/4AAQSkZJRg*"]}, "images[0]", "base64"),
        ("<img>/etc/rose.jpg</img>", {}, "messages[0].content.<img>[0]", "not below the allowed folder"),
        ("<img>../rose.jpg</img>", {}, "messages[0].content.<img>[0]", "'..'"),
        ("图", {"images": ["BASE/rose.jpg", "BASE/none.png"]}, "images[1]", "HTTP status 404"),
        ("图", {"audios": ["BASE/weather.wav"]}, "audios[0]", "does not support multi-modal inputs of kind audio"),
    ],
)
def test_wrong_media_are_told_as_swifts_client_reads_it(
    running: Running, media: str, query: str, fields: Any, param: str, words: str
) -> None:
    fields = {name: [url.replace("BASE", media) for url in urls] for name, urls in fields.items()}
    error = post(running, swift(MODEL, query.replace("BASE", media), **fields), status=400)
    assert error["object"] == "error"
    assert words in error["message"]
    assert error["param"] == param
