"""The server as a user meets it: real processes, the real openai client, a real checkpoint layout."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image, ImageDraw

from tests.checkpoints import make_checkpoint
from tests.e2e.running import Running, ask, data_url, serve

MODEL = "tiny-qwen3-vl"
FREE = {"top_k": -1, "ignore_eos": True}  # the checkpoint's own defaults would leave one candidate


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    make_checkpoint("qwen3_vl", folder / "checkpoint", shards=2)
    arguments = [str(folder / "checkpoint"), "--served-model-name", MODEL, "--dtype", "float32"]
    with serve([*arguments, "--allowed-local-media-path", str(folder)], folder / "home") as started:
        yield started


def picture(number: int, size: tuple[int, int] = (96, 80)) -> str:
    source = random.Random(number)
    image = Image.new("RGB", size, tuple(source.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = source.randrange(size[0]), source.randrange(size[1])
        draw.rectangle((x, y, x + 20, y + 20), fill=tuple(source.randrange(256) for _ in range(3)))
    return data_url(image)


def answer(running: Running, messages: Any, **options: Any) -> str:
    options = {"max_tokens": 12, "temperature": 0, "extra_body": {"ignore_eos": True}} | options
    reply = running.client().chat.completions.create(model=MODEL, messages=messages, **options)
    return reply.choices[0].message.content or ""


def test_sixteen_pictures_at_once_are_answered_as_each_alone(running: Running) -> None:
    questions = [ask(f"Question {n}?", picture(n)) for n in range(16)]
    alone = [answer(running, messages) for messages in questions]
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(lambda messages: answer(running, messages), questions))
    assert together == alone
    assert len(set(alone)) > 4, "the answers hardly depend on the picture"


def test_streamed_and_whole_answers_are_equal(running: Running) -> None:
    messages = ask("What is this?", picture(1))
    stream = running.client().chat.completions.create(
        model=MODEL, messages=messages, max_tokens=12, temperature=0, stream=True, extra_body={"ignore_eos": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer(running, messages)
    assert all(isinstance(chunk.choices[0].delta.content, str) for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_conversation_with_pictures_in_several_turns_decodes_none_twice(running: Running) -> None:
    first = ask("What is this?", picture(201))
    reply = answer(running, first)
    running.metrics_now()
    decoded = running.metric("media_decoded")
    turns = [*first, {"role": "assistant", "content": reply}, *ask("And this?", picture(202))]
    answer(running, turns)
    answer(running, turns)
    running.metrics_now()
    assert running.metric("media_decoded") == decoded + 1


def test_the_same_seed_gives_the_same_text_whatever_else_runs(running: Running) -> None:
    def draw(seed: int) -> str:
        return answer(
            running, ask("Say something.", picture(3)), temperature=8.0, top_p=1.0, seed=seed, extra_body=FREE
        )

    alone = draw(7)
    with ThreadPoolExecutor(8) as threads:
        crowd = list(threads.map(draw, [1, 2, 7, 3, 4, 7, 5, 6]))
    assert crowd[2] == crowd[5] == alone
    assert len(set(crowd)) > 4


def test_local_files_below_the_allowed_folder_only(running: Running, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "outside.png")
    with pytest.raises(openai.BadRequestError) as refused:
        answer(running, ask("?", f"file://{tmp_path}/outside.png"))
    assert refused.value.param == "messages[0].content[0].image_url"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 400, ["JSON"]),
        ({"model": "nobody", "messages": ask("hi")}, 404, ["nobody"]),
        ({"messages": ask("word " * 6000)}, 400, ["4096"]),
        ({"messages": [{"role": "user", "content": [{"type": "smell", "smell": {}}]}]}, 400, ["smell"]),
        ({"messages": ask("hi"), "top_p": 3}, 400, ["top_p", "3"]),
        ({"messages": ask("hi"), "logit_bias": {"99999": 1}}, 400, ["99999"]),
        ({"messages": ask("hi"), "bad_words": [""]}, 400, ["bad_words"]),
        ({"messages": ask("hi", "data:image/png;base64,aGVsbG8=")}, 400, ["messages[0].content[0]"]),
        ({"messages": ask("hi", "http://127.0.0.1:1/x.png")}, 400, ["messages[0].content[0]"]),
        ({"messages": ask("hi", "ftp://example.com/x.png")}, 400, ["messages[0].content[0]"]),
        ({"messages": ask("hi", picture(1)), "mm_processor_kwargs": {"max_pixels": -5}}, 400, ["max_pixels"]),
        (
            {"messages": ask("hi", picture(1)), "mm_processor_kwargs": {"size": 3}},
            400,
            ["size", "min_pixels and max_pixels"],
        ),
    ],
)
def test_bad_input_is_told_what_is_wrong_with_it(running: Running, body: Any, status: int, words: list[str]) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    reply = httpx.post(
        f"{running.url}/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
    assert reply.status_code == status, reply.text
    error = reply.json()
    assert error["object"] == "error"
    for word in words:
        assert word in f"{error['error']['message']} {error['error']['param']}"


def test_a_client_that_leaves_frees_its_blocks(running: Running) -> None:
    # The figures are as old as the worker's last beat: each is waited for, the ones before and amid the answer too.
    running.until("being idle", lambda: running.metric("requests_running") == 0)
    free = running.metric("kv_blocks_free")
    body = {
        "model": MODEL,
        "messages": ask("Go on.", picture(5)),
        "max_tokens": 3000,
        "stream": True,
        "ignore_eos": True,
    }
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        for _ in range(8):
            next(lines)
        running.until("showing the request", lambda: running.metric("requests_running") == 1)
        assert running.metric("kv_blocks_free") < free
    running.until("ending the request", lambda: running.metric("requests_running") == 0)
    assert running.metric("kv_blocks_free") == free


def test_a_worker_that_is_killed_ends_its_streams_and_nothing_else(running: Running) -> None:
    messages = ask("Go on.", picture(6))
    body = {"model": MODEL, "messages": messages, "max_tokens": 3000, "stream": True, "ignore_eos": True}
    before = answer(running, messages)
    lines = []
    worker = running.worker()
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=60) as reply:
        for line in reply.iter_lines():
            lines.append(line)
            if len(lines) == 3:
                worker.kill()
    ends = [line for line in lines if line]
    assert json.loads(ends[-1].removeprefix("data: "))["error"]["type"] == "worker_died"
    assert "[DONE]" not in ends[-1]
    assert httpx.get(f"{running.url}/health").status_code == 200
    assert answer(running, messages) == before


def test_tokenize_counts_what_a_request_costs(running: Running) -> None:
    body = {"model": MODEL, "messages": ask("How many tokens are these?", picture(7))}
    count = httpx.post(f"{running.url}/tokenize", json=body).json()
    reply = running.client().chat.completions.create(model=MODEL, messages=body["messages"], max_tokens=1)  # type: ignore[call-overload]
    assert count["count"] == reply.usage.prompt_tokens
    text = httpx.post(f"{running.url}/detokenize", json={"model": MODEL, "tokens": count["tokens"]}).json()["prompt"]
    assert "How many tokens are these?" in text


def test_sigterm_lets_a_stream_finish(tmp_path: Path) -> None:
    make_checkpoint("qwen2", tmp_path / "checkpoint")
    with serve([str(tmp_path / "checkpoint"), "--served-model-name", MODEL], tmp_path / "home") as started:
        lines: list[str] = []

        def read() -> None:
            body = {"messages": ask("Go on."), "max_tokens": 400, "stream": True, "ignore_eos": True}
            with httpx.stream("POST", f"{started.url}/v1/chat/completions", json=body, timeout=60) as reply:
                for line in reply.iter_lines():
                    lines.extend([line] if line else [])

        reader = threading.Thread(target=read)
        reader.start()
        started.until("the first token", lambda: len(lines) > 3)
        started.process.send_signal(signal.SIGTERM)
        reader.join(timeout=60)
        started.process.wait(timeout=30)
        assert lines[-1] == "data: [DONE]"
        assert started.process.returncode == 0
