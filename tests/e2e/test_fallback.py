"""A server whose model no native family serves: the engine `transformers`, behind the same interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.e2e.running import Running, ask, data_url, serve
from tests.hf.checkpoints import idefics3

MODEL = "tiny-idefics3"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    path = idefics3(folder / "checkpoint")
    arguments = [str(path), "--served-model-name", MODEL, "--dtype", "float32", "--trust-remote-code"]
    with serve(arguments, folder / "home") as started:
        yield started


def picture(colour: str) -> str:
    return data_url(Image.new("RGB", (90, 60), colour))


def answer(running: Running, messages: Any, **options: Any) -> str:
    options = {"max_tokens": 12, "temperature": 0, "extra_body": {"ignore_eos": True}} | options
    reply = running.client().chat.completions.create(model=MODEL, messages=messages, **options)
    return reply.choices[0].message.content or ""


def test_streamed_and_whole_answers_are_equal(running: Running) -> None:
    messages = ask("What is this?", picture("red"))
    stream = running.client().chat.completions.create(
        model=MODEL,
        messages=messages,  # type: ignore[arg-type]
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer(
        running, messages
    )
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 4, "not piece by piece"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.completion_tokens, usage.prompt_tokens > 40) == (12, True)


def test_requests_at_once_are_answered_as_each_alone(running: Running) -> None:
    questions = [ask(f"Question {n}?", picture(colour)) for n, colour in enumerate(("red", "green", "blue", "white"))]
    alone = [answer(running, messages) for messages in questions]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda messages: answer(running, messages), questions))
    assert together == alone
    assert len(set(alone)) == 4


def test_a_client_that_leaves_frees_the_worker(running: Running) -> None:
    running.metrics_now()
    before = running.metric("computed_tokens")
    body = {"model": MODEL, "messages": ask("Go on."), "max_tokens": 400, "n": 16, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        for _ in range(8):
            next(lines)
    answer(running, ask("Next, please."))
    running.metrics_now()
    assert running.metric("requests_running") == running.metric("requests_waiting") == 0
    assert running.metric("computed_tokens") - before < 3200, "the answers nobody reads were computed"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": ask("word " * 600)}, ["512"]),
        ({"messages": ask("hi"), "logit_bias": {"99999": 1}}, ["99999"]),
        ({"messages": ask("hi", "data:image/png;base64,aGVsbG8=")}, ["messages[0].content[0]"]),
        ({"messages": ask("hi", picture("red")), "mm_processor_kwargs": {"max_pixels": 9}}, ["max_pixels"]),
        ({"messages": ask("hi"), "response_format": {"type": "json_object"}}, ["response_format"]),
    ],
)
def test_bad_input_is_told_what_is_wrong_with_it(running: Running, body: dict[str, Any], words: list[str]) -> None:
    reply = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert all(word in f"{error['message']} {error['param']}" for word in words), error


def test_a_refusal_in_the_worker_is_the_clients_error_class(running: Running) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        answer(running, ask("?", *[picture("red")] * 20))
    assert refused.value.code == "context_length_exceeded"
    assert answer(running, ask("Still there?"))


def test_tokenize_counts_what_a_request_costs(running: Running) -> None:
    body = {"model": MODEL, "messages": ask("How many tokens are these?", picture("red"))}
    count = httpx.post(f"{running.url}/tokenize", json=body).json()
    reply = running.client().chat.completions.create(model=MODEL, messages=body["messages"], max_tokens=1)  # type: ignore[call-overload]
    assert count["count"] == reply.usage.prompt_tokens


def test_a_worker_that_is_killed_ends_its_stream_and_the_next_request_works(running: Running) -> None:
    messages = ask("Go on.", picture("blue"))
    before = answer(running, messages)
    body = {"model": MODEL, "messages": messages, "max_tokens": 400, "n": 8, "stream": True, "ignore_eos": True}
    lines = []
    worker = running.worker()
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=60) as reply:
        for line in reply.iter_lines():
            lines.append(line)
            if len(lines) == 3:
                worker.kill()
    ends = [line for line in lines if line]
    assert json.loads(ends[-1].removeprefix("data: "))["error"]["type"] == "worker_died"
    assert answer(running, messages) == before
