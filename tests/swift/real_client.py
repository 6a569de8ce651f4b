"""ms-swift 2.6.1's own client against our server, and what it sends against what ours sends.

Runs in an environment of its own (`make test-swift`), because ms-swift pins what we cannot have beside us. The server
runs with the interpreter that SENSORIUM_PYTHON names.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensorium import client as ours
from tests.client.recorder import recording
from tests.e2e import running as e2e
from tests.swift.installed import load_client

swift = load_client()
DOCS = Path(__file__).parents[2] / "docs"
FILE = str(DOCS / "shapes.png")
ENCODED = base64.b64encode(Path(FILE).read_bytes()).decode()
SHAPES = "The picture shows a red circle, a green triangle and a blue square."
QUESTION = "What is in this picture?"
HISTORY = [("<image>What?", "A cat."), ["And?", "No."]]
CALLS: dict[str, dict[str, Any]] = {
    "text": {"query": "What?"},
    "system": {"query": "What?", "system": "Be brief.", "history": HISTORY},
    "tag": {"query": f"<img>{FILE}</img>What?"},
    "tags": {"query": "<img>http://x/a.png</img><audio>QUJD</audio><video>x.mp4</video>What?"},
    "list": {"query": "<image>What?", "images": [FILE, "http://x/a.png", ENCODED]},
    "bytes": {"query": "What?", "images": [b"cat"]},
    "others": {"query": "What?", "audios": ["http://x/a.wav"], "videos": [FILE], "images": []},
    "tools": {"query": "What?", "tools": [{"type": "function"}], "tool_choice": "required"},
    "roles": {"query": "What?", "history": HISTORY[:1], "roles": [["user", "assistant"], ["tool", "assistant"]]},
    "told": {"query": "What?", "is_chat_request": True, "is_multimodal": True},
}
CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0, "max_tokens": 7, "seed": 42, "stop": ["."], "n": 2},
    {"top_k": 5, "top_p": 0.5, "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.0},
)


def config(module: Any, **fields: Any) -> Any:
    return module.XRequestConfig(**fields)


@pytest.mark.parametrize("fields", CONFIGS)
@pytest.mark.parametrize("name", CALLS)
def test_both_clients_send_the_same(name: str, fields: dict[str, Any]) -> None:
    with recording() as server:
        for module in (swift, ours):
            module.inference_client("m", **CALLS[name], request_config=config(module, **fields), **server.where)
    theirs, mine = server.bodies
    assert mine == theirs
    assert server.paths == ["/v1/chat/completions"] * 2
    assert server.keys[0] == server.keys[1]


@pytest.mark.parametrize("is_multimodal", [False, True])
def test_both_clients_send_the_same_finished_prompt(is_multimodal: bool) -> None:
    with recording() as server:
        server.cards = [{"id": "m", "object": "model", "is_chat": False, "is_multimodal": is_multimodal}]
        for module in (swift, ours):
            module.inference_client("m", f"<img>{FILE}</img>Once", **server.where)
    assert server.bodies[0] == server.bodies[1]
    assert server.paths == ["/v1/completions"] * 2


def test_both_clients_return_the_same() -> None:
    with recording() as server:
        whole = [module.inference_client("m", "What?", **server.where) for module in (swift, ours)]
        streams = [
            list(module.inference_client("m", "What?", request_config=config(module, stream=True), **server.where))
            for module in (swift, ours)
        ]
    assert whole[0].choices[0].message.content == whole[1].choices[0].message.content
    assert vars(whole[0].usage) == vars(whole[1].usage)
    assert [chunk.choices[0].delta.content for chunk in streams[0]] == [
        chunk.choices[0].delta.content for chunk in streams[1]
    ]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    here, sys.executable = sys.executable, os.environ["SENSORIUM_PYTHON"]
    try:
        with e2e.serve(["--allow-private-media"], tmp_path_factory.mktemp("home")) as started:
            yield {"port": started.url.rpartition(":")[2]}
    finally:
        sys.executable = here


def test_the_real_client_reads_our_models(where: dict[str, Any]) -> None:
    models = swift.get_model_list_client(**where).data
    assert [(model.id, model.is_chat, model.is_multimodal) for model in models] == [
        ("tiny-vl", True, True),
        ("tiny-audio", True, True),
    ]
    assert asyncio.run(swift.get_model_list_client_async(**where)).data == models


@pytest.mark.parametrize("form", [FILE, ENCODED])
def test_the_real_client_asks_about_a_picture_in_the_question(where: dict[str, Any], form: str) -> None:
    query = f"<img>{form}</img>{QUESTION}"
    greedy = config(swift, seed=42, temperature=0)
    response = swift.inference_client("tiny-vl", query, request_config=greedy, **where)
    assert response.choices[0].message.content == SHAPES
    stream = config(swift, stream=True, seed=42, temperature=0)
    history = [(query, SHAPES)]
    chunks = swift.inference_client("tiny-vl", "How many shapes are there?", history, request_config=stream, **where)
    assert "3" in "".join(chunk.choices[0].delta.content for chunk in chunks)


def test_the_real_client_asks_about_pictures_of_several_turns(where: dict[str, Any]) -> None:
    images = [FILE]
    query = f"<image>{QUESTION}"
    greedy, stream = config(swift, temperature=0), config(swift, stream=True, temperature=0)
    response = swift.inference_client("tiny-vl", query, images=images, request_config=greedy, **where)
    assert response.choices[0].message.content == SHAPES
    images.append(str(DOCS / "star.png"))
    chunks = swift.inference_client("tiny-vl", query, [(query, SHAPES)], images=images, request_config=stream, **where)
    assert "star" in "".join(chunk.choices[0].delta.content for chunk in chunks)


def test_the_real_asynchronous_client(where: dict[str, Any]) -> None:
    async def ask() -> str:
        stream = config(swift, stream=True, temperature=0)
        chunks = await swift.inference_client_async("tiny-vl", QUESTION, images=[FILE], request_config=stream, **where)
        return "".join([chunk.choices[0].delta.content async for chunk in chunks])

    assert asyncio.run(ask()) == SHAPES


def test_the_real_client_says_what_our_server_refuses(where: dict[str, Any]) -> None:
    from requests.exceptions import HTTPError

    with pytest.raises(HTTPError, match="Failed to load image"):
        swift.inference_client("tiny-vl", "<img>http://127.0.0.1:1/x</img>What?", **where)
    stream = config(swift, stream=True, n=99)
    with pytest.raises(Exception, match="99"):
        list(swift.inference_client("tiny-vl", "What?", request_config=stream, **where))
