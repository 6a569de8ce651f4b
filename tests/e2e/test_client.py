"""The client functions against a real server: the conversations of the seeds' document, on the bundled model."""

from __future__ import annotations

import asyncio
import base64
import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import InvalidRequest, ModelNotFound
from sensorium.llm import (
    XRequestConfig,
    convert_to_base64,
    get_model_list_client,
    inference_client,
    inference_client_async,
)
from tests.e2e.running import Running, serve

DOCS = Path(__file__).parents[2] / "docs"
SHAPES = "The picture shows a red circle, a green triangle and a blue square."
QUESTION = "What is in this picture?"
GREEDY = XRequestConfig(temperature=0)
STREAM = XRequestConfig(stream=True, temperature=0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(["--allow-private-media"], tmp_path_factory.mktemp("home")) as started:
        yield started


@pytest.fixture(scope="module")
def where(running: Running) -> dict[str, Any]:
    return {"port": running.url.rpartition(":")[2]}


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(DOCS)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def said(response: Any) -> str:
    return str(response.choices[0].message.content)


def streamed(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content for chunk in chunks)


def test_a_picture_in_the_question(where: dict[str, Any], pictures: str) -> None:
    model = get_model_list_client(**where).data[0]
    assert (model.id, model.is_chat, model.is_multimodal) == ("tiny-vl", True, True)
    file = DOCS / "shapes.png"
    encoded = base64.b64encode(file.read_bytes()).decode()
    for form in (f"{pictures}/shapes.png", encoded, str(file)):
        response = inference_client("tiny-vl", f"<img>{form}</img>{QUESTION}", request_config=GREEDY, **where)
        assert said(response) == SHAPES
        assert response.usage.prompt_tokens > 25
        assert response.choices[0].finish_reason == "stop"
    query = f"<img>{pictures}/shapes.png</img>{QUESTION}"
    chunks = inference_client(
        "tiny-vl", "How many shapes are there?", [(query, SHAPES)], request_config=STREAM, **where
    )
    assert "3" in streamed(chunks)


def test_pictures_beside_the_questions(where: dict[str, Any], pictures: str) -> None:
    images = [f"{pictures}/shapes.png"]
    query = f"<image>{QUESTION}"
    response = inference_client("tiny-vl", query, images=images, request_config=GREEDY, **where)
    assert said(response) == SHAPES
    images.append(f"{pictures}/star.png")
    chunks = inference_client("tiny-vl", query, [(query, SHAPES)], images=images, request_config=STREAM, **where)
    assert "star" in streamed(chunks)
    converted = convert_to_base64(images=[str(DOCS / "star.png")])["images"]
    assert "star" in said(inference_client("tiny-vl", QUESTION, images=converted, request_config=GREEDY, **where))


def test_several_at_once(where: dict[str, Any]) -> None:
    async def ask(name: str, config: XRequestConfig) -> str:
        images = [str(DOCS / name)]
        answer = await inference_client_async("tiny-vl", QUESTION, images=images, request_config=config, **where)
        if not config.stream:
            return said(answer)
        return "".join([chunk.choices[0].delta.content async for chunk in answer])

    async def together() -> list[str]:
        names = ("shapes.png", "star.png", "shapes.png")
        return await asyncio.gather(*(ask(name, config) for name in names for config in (GREEDY, STREAM)))

    answers = asyncio.run(together())
    assert answers[:2] == answers[4:] == [SHAPES] * 2
    assert answers[2] == answers[3]
    assert "star" in answers[2]


def test_refusals(where: dict[str, Any]) -> None:
    with pytest.raises(ModelNotFound, match="'tiny-vl'"):
        inference_client("other", QUESTION, **where)
    with pytest.raises(ModelNotFound, match="other"):
        inference_client("other", QUESTION, is_chat_request=True, is_multimodal=True, **where)
    with pytest.raises(InvalidRequest):
        inference_client("tiny-vl", "<img>http://127.0.0.1:1/x.png</img>What?", **where)
    with pytest.raises(InvalidRequest):
        inference_client("tiny-vl", "<image>What?", images=["nonsense"], request_config=STREAM, **where)
