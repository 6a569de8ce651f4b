"""The client functions against a server that keeps what it is asked."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sensorium.errors import ConfigurationError, InvalidRequest, ModelNotFound, Overloaded, SensoriumError, Unauthorized
from sensorium.llm import (
    XRequestConfig,
    convert_to_base64,
    get_model_list_client,
    get_model_list_client_async,
    inference_client,
    inference_client_async,
)
from tests.client.recorder import Recorder, recording


@pytest.fixture
def server() -> Iterator[Recorder]:
    with recording() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(b"cat")
    return path


CAT = base64.b64encode(b"cat").decode()


def test_models_are_listed(server: Recorder) -> None:
    server.cards = [{"id": "a", "is_chat": False, "is_multimodal": False, "more": 1}, {"id": "b", "created": 7}]
    listed = get_model_list_client(**server.where)
    assert [(model.id, model.is_chat, model.is_multimodal) for model in listed.data] == [
        ("a", False, False),
        ("b", True, True),
    ]
    assert listed.data[1].created == 7
    assert asyncio.run(get_model_list_client_async(url=f"http://127.0.0.1:{server.port}/v1/")) == listed


def test_a_conversation_is_sent_as_messages(server: Recorder) -> None:
    history = [("<image>What?", "A cat."), ["And?", "No."]]
    response = inference_client(
        "m", "Why?", history, "Be brief.", images=["http://x/cat.png"], audios=["QUJD"], videos=[], **server.where
    )
    assert response.choices[0].message.content == "a picture"
    assert response.usage.total_tokens == 5
    assert server.bodies == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "<image>What?"},
                {"role": "assistant", "content": "A cat."},
                {"role": "user", "content": "And?"},
                {"role": "assistant", "content": "No."},
                {"role": "user", "content": "Why?"},
            ],
            "images": ["http://x/cat.png"],
            "audios": ["QUJD"],
        }
    ]
    assert server.keys == ["Bearer EMPTY"]


def test_only_what_was_set_is_sent(server: Recorder) -> None:
    config = XRequestConfig(max_tokens=7, temperature=0, seed=42, n=1, stop=["."], repetition_penalty=1.1)
    inference_client("m", "Why?", request_config=config, **server.where)
    body = server.bodies[0]
    del body["messages"]
    assert body == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 0,
        "seed": 42,
        "stop": ["."],
        "repetition_penalty": 1.1,
    }


def test_a_stream_is_read_to_its_end(server: Recorder) -> None:
    chunks = list(inference_client("m", "What?", request_config=XRequestConfig(stream=True), **server.where))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["a pic", "ture"]
    server.cut = True
    with pytest.raises(SensoriumError, match="ended the stream before"):
        list(inference_client("m", "What?", request_config=XRequestConfig(stream=True), **server.where))


def test_the_asynchronous_twin_does_the_same(server: Recorder) -> None:
    async def both() -> tuple[Any, list[Any]]:
        whole = await inference_client_async("m", "What?", images=["QUJD"], **server.where)
        config = XRequestConfig(stream=True)
        stream = await inference_client_async("m", "What?", images=["QUJD"], request_config=config, **server.where)
        return whole, [chunk.choices[0].delta.content async for chunk in stream]

    whole, pieces = asyncio.run(both())
    assert whole.choices[0].message.content == "a picture"
    assert pieces == ["a pic", "ture"]
    inference_client("m", "What?", images=["QUJD"], **server.where)
    assert server.bodies[0] == server.bodies[2]


def test_a_finished_prompt_goes_to_completions(server: Recorder) -> None:
    server.cards[0] = {"id": "m", "is_chat": False, "is_multimodal": False}
    assert inference_client("m", "Once", **server.where).choices[0].text == "a picture"
    chunks = inference_client("m", "Once", request_config=XRequestConfig(stream=True), **server.where)
    assert [chunk.choices[0].text for chunk in chunks] == ["a pic", "ture"]
    assert server.paths == ["/v1/completions"] * 2
    assert server.bodies[0] == {"model": "m", "prompt": "Once"}
    with pytest.raises(InvalidRequest, match="no history"):
        inference_client("m", "Once", [("a", "b")], **server.where)


def test_files_are_sent_as_base64(server: Recorder, file: Path) -> None:
    inference_client("m", f"<img>{file}</img><audio>{file}</audio>What?", images=[str(file)], **server.where)
    assert server.bodies[0]["messages"] == [{"role": "user", "content": f"<img>{CAT}</img><audio>{CAT}</audio>What?"}]
    assert server.bodies[0]["images"] == [CAT]
    server.cards[0] = {"id": "m", "is_multimodal": False}
    inference_client("m", f"<img>{file}</img>What?", **server.where)
    assert server.bodies[1]["messages"][0]["content"] == f"<img>{file}</img>What?"


def test_an_answer_cannot_make_the_client_send_a_file(server: Recorder, file: Path) -> None:
    inference_client("m", "And?", [("What?", f"<img>{file}</img>")], **server.where)
    assert server.bodies[0]["messages"][1]["content"] == f"<img>{file}</img>"


def test_convert_to_base64(file: Path) -> None:
    image = Image.new("RGB", (2, 2))
    converted = convert_to_base64(images=[str(file), file, b"cat", "http://x/cat.png", CAT, image])["images"]
    assert converted[:5] == [CAT, CAT, CAT, "http://x/cat.png", CAT]
    assert base64.b64decode(converted[5]).startswith(b"\x89PNG")
    assert convert_to_base64(prompt=f"a<video>{file}</video>b<img>http://x</img>") == {
        "prompt": f"a<video>{CAT}</video>b<img>http://x</img>"
    }


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"object": "error", "message": "Too long.", "param": "messages"}, InvalidRequest, "Too long"),
        (401, {"error": "Unauthorized"}, Unauthorized, "Unauthorized"),
        (404, {"error": {"message": "No such model.", "code": "model_not_found"}}, ModelNotFound, "No such model"),
        (404, {"detail": "Not Found"}, ModelNotFound, "Not Found"),
        (503, {"object": "error", "message": "Full."}, Overloaded, "Full"),
        (502, {"what": "?"}, SensoriumError, "answered 502"),
        (200, {"object": "error", "message": "Broken."}, SensoriumError, "Broken"),
        (200, {"choices": 3}, SensoriumError, "ChatCompletionResponse"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_are_errors_with_the_servers_words(
    server: Recorder, status: int, body: Any, kind: type[SensoriumError], words: str, stream: bool
) -> None:
    server.answer = (status, body)
    words = "ended the stream before" if stream and status == 200 else words  # there are no events in it
    config = XRequestConfig(stream=stream)
    with pytest.raises(kind, match=words) as refused:
        list(inference_client("m", "What?", request_config=config, **server.where))
    assert type(refused.value) is kind
    assert refused.value.param == body.get("param")


def test_wrong_calls_are_refused_by_name(server: Recorder) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'x'; it has 'm'"):
        inference_client("x", "What?", **server.where)
    with pytest.raises(TypeError, match="image_list"):
        inference_client("m", "What?", image_list=[], **server.where)
    with pytest.raises(InvalidRequest, match="1 pairs of roles for 1 turns"):
        inference_client("m", "What?", [("a", "b")], roles=[("user", "assistant")], **server.where)
    assert server.bodies == []


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SensoriumError, match=f"No answer from http://127.0.0.1:{port}/v1"):
        get_model_list_client(port=port)


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_timeout_is_none_that_was_set(server: Recorder, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEOUT", given)
    assert get_model_list_client(**server.where).data


def test_a_timeout_that_is_no_number_is_named(server: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEOUT", "soon")
    with pytest.raises(ConfigurationError, match="TIMEOUT is 'soon'"):
        get_model_list_client(**server.where)
