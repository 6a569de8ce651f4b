"""The same requests to all four engine kinds: their answers, streamed or not, and their errors have one shape.

`vllm` runs the server that stands in for vLLM; tests/vllm has the same with vLLM itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.e2e.running import Running, ask, data_url, serve
from tests.hf.checkpoints import idefics3
from tests.vllm_stand_in import checkpoint, interpreter

MODEL = "tiny"
SAY = {"messages": ask("Hello"), "max_tokens": 4, "temperature": 0}
PICTURE = {"messages": ask("Hello", data_url(Image.new("RGB", (64, 64), "red"))), "max_tokens": 4, "temperature": 0}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, SAY),
    "picture": (CHAT, PICTURE),
    "chat logprobs": (CHAT, {**SAY, "logprobs": True, "top_logprobs": 2}),
    "two choices": (CHAT, {**SAY, "n": 2, "temperature": 1, "seed": 3}),
    "two greedy choices": (CHAT, {**SAY, "n": 2}),
    "text": (TEXT, {"prompt": "Hello", "max_tokens": 4, "temperature": 0}),
    "text logprobs": (TEXT, {"prompt": "Hello", "max_tokens": 2, "temperature": 0, "logprobs": 2}),
    "too long": (CHAT, {**SAY, "messages": ask("Hello " * 5000)}),
    "refused": (CHAT, {**SAY, "prompt_logprobs": 2}),
    "no picture": (CHAT, {**SAY, "messages": ask("Hello", "data:image/png;base64,AAAA")}),
    "processor option": (CHAT, {**PICTURE, "mm_processor_kwargs": {"no_such_option": 1}}),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    home = tmp_path_factory.mktemp("home")
    folder = tmp_path_factory.mktemp("vllm")
    path = idefics3(tmp_path_factory.mktemp("library") / "checkpoint")
    name = ("--served-model-name", MODEL)
    with ExitStack() as stack:
        native = stack.enter_context(serve(("tiny-vl", *name), home))
        library = stack.enter_context(serve((str(path), *name, "--engine", "transformers"), home))
        vllm = stack.enter_context(
            serve((checkpoint(folder), *name, "--engine", "vllm", "--engine-python", interpreter(folder)), home)
        )
        remote = (MODEL, "--engine", "remote", "--base-url", f"{native.url}/v1")
        other = stack.enter_context(serve((*remote, *name), home))
        yield {"native": native, "transformers": library, "vllm": vllm, "remote": other}


def shape(value: Any) -> Any:
    """The keys and types of a JSON value; what was told of media differs by engine."""
    if isinstance(value, dict):
        known = {key: inner for key, inner in value.items() if key not in ("media", "multimodal_tokens")}
        # Keys are tokens in the one, and the other may be null.
        return {
            key: sorted(map(shape, inner[0].values())) if key == "top_logprobs" and "tokens" in value else shape(inner)
            for key, inner in sorted(known.items())
            if key != "code"
        }
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def answer(server: Running, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    response = httpx.post(f"{server.url}{path}", json={"model": MODEL, **body}, timeout=60)
    return response.status_code, shape(response.json())


def stream(server: Running, path: str, body: dict[str, Any]) -> list[Any]:
    """The shapes of a stream's chunks, each once, in the order in which they come first."""
    wanted = {"model": MODEL, **body, "stream": True, "stream_options": {"include_usage": True}}
    found: list[Any] = []
    with httpx.stream("POST", f"{server.url}{path}", json=wanted, timeout=60) as response:
        lines = [line for line in response.iter_lines() if line]
    if response.status_code != 200:
        return [response.status_code]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        assert line.startswith("data: ")
        chunk = json.loads(line[6:])
        for choice in chunk["choices"]:  # null but in the last piece, where a stop string may stand as well
            assert choice.pop("stop_reason") in (None, "o")
        if shape(chunk) not in found:
            found.append(shape(chunk))
    return found


@pytest.mark.parametrize("engine", ["transformers", "vllm", "remote"])
@pytest.mark.parametrize("name", REQUESTS)
def test_answers_have_one_shape(servers: dict[str, Running], name: str, engine: str) -> None:
    path, body = REQUESTS[name]
    assert answer(servers[engine], path, body) == answer(servers["native"], path, body)


@pytest.mark.parametrize("engine", ["transformers", "vllm", "remote"])
@pytest.mark.parametrize("name", REQUESTS)
def test_streams_have_one_shape(servers: dict[str, Running], name: str, engine: str) -> None:
    path, body = REQUESTS[name]
    assert stream(servers[engine], path, body) == stream(servers["native"], path, body)


def test_another_sensorium_gives_its_very_answer(servers: dict[str, Running]) -> None:
    def ask_both(path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        both = [servers[name] for name in ("native", "remote")]
        found = [httpx.post(f"{s.url}{path}", json={"model": MODEL, **body}, timeout=60).json() for s in both]
        for one in found:
            del one["id"], one["created"]
            one["usage"]["prompt_tokens_details"].pop("cached_tokens")
            for media in one["usage"]["prompt_tokens_details"].get("media", ()):
                for known_there in ("tokens", "resized_width", "resized_height"):
                    media.pop(known_there, None)
            one["usage"]["prompt_tokens_details"].pop("multimodal_tokens", None)
        return found

    for name in ("chat", "picture", "chat logprobs", "two choices", "text", "text logprobs"):
        direct, through = ask_both(*REQUESTS[name])
        assert through == direct


def test_a_models_card_goes_through(servers: dict[str, Running]) -> None:
    cards = [httpx.get(f"{servers[name].url}/v1/models").json()["data"][0] for name in ("native", "remote")]
    for field in ("max_model_len", "input_modalities", "default_sampling"):
        assert cards[0][field] == cards[1][field]
    assert cards[1]["engine"] == "remote"
    body = {"model": MODEL, "prompt": "Hello", "return_token_strs": True}
    tokens = [httpx.post(f"{servers[name].url}/tokenize", json=body).json() for name in ("native", "remote")]
    assert tokens[0] == tokens[1]
