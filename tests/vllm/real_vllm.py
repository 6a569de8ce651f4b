"""The engine `vllm` with vLLM itself: tiny-vl behind a real `sensorium serve`.

SENSORIUM_TEST_VLLM_PYTHON names the interpreter that has vLLM. A start takes vLLM half a minute to two, so most tests
share one server, and those that kill something come last, in an order that needs the fewest starts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from PIL import Image, ImageDraw

from sensorium import LLM
from sensorium.registry.hub import resolve
from sensorium.types import SamplingParams
from tests.e2e import running
from tests.e2e.running import Running, ask, data_url

PYTHON = os.environ.get("SENSORIUM_TEST_VLLM_PYTHON", "")
START_S = 600.0
QUESTIONS = ("What is this?", "How many shapes are there?")
FLAGS = (
    *("tiny-vl", "--engine", "vllm", "--engine-python", PYTHON, "--engine-arg", "enforce_eager=true"),
    *("--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "8", "--kv-cache-memory", "1GiB"),
    *("--limit-mm-per-prompt", '{"image": 3, "video": 1}', "--threads", "1"),
)

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(autouse=True, scope="module")
def patience() -> None:
    running.START_S = START_S


def circle(colour: str = "red") -> Image.Image:
    image = Image.new("RGB", (160, 160), "white")
    ImageDraw.Draw(image).ellipse((30, 30, 120, 120), fill=colour)
    return image


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running.serve(FLAGS, tmp_path_factory.mktemp("home"), variables={"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}) as it:
        yield it


def family(server: Running) -> list[psutil.Process]:
    return server.worker().children(recursive=True)


def called(processes: list[psutil.Process], word: str) -> psutil.Process:
    return next(process for process in processes if word in " ".join(process.cmdline()))


def gone(processes: list[psutil.Process], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while left := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"still there: {[p.cmdline() for p in left]}"
        time.sleep(0.1)


def ready(server: Running) -> bool:
    return httpx.get(f"{server.url}/ready").status_code == 200


def slow(server: Running) -> openai.Stream:
    return server.client(timeout=300).completions.create(
        model="tiny-vl", prompt="Hello", max_tokens=450, stream=True, extra_body={"ignore_eos": True}
    )


def after_three(stream: openai.Stream, act: Callable[[], None]) -> None:
    for number, _ in enumerate(stream):
        if number == 3:
            act()


def test_greedy_answers_are_those_of_the_native_engine(server: Running) -> None:
    client = server.client(timeout=300)
    with LLM("tiny-vl", dtype="float32", num_threads=1) as native:
        for colour in ("red", "blue"):
            for question in QUESTIONS:
                messages = ask(question, data_url(circle(colour)))
                expected = native.chat(messages, SamplingParams(temperature=0, max_tokens=40), use_tqdm=False)[0]
                answer = client.chat.completions.create(
                    model="tiny-vl", messages=messages, temperature=0, max_tokens=40
                )
                assert answer.choices[0].message.content == expected.outputs[0].text
                assert answer.choices[0].finish_reason == expected.outputs[0].finish_reason
                assert answer.usage.prompt_tokens == len(expected.prompt_token_ids)
                assert answer.usage.completion_tokens == len(expected.outputs[0].token_ids)


def test_a_stream_is_the_answer_in_pieces(server: Running) -> None:
    client = server.client(timeout=300)
    fields = {"model": "tiny-vl", "messages": ask("What is this?", data_url(circle())), "temperature": 0}
    whole = client.chat.completions.create(**fields)
    pieces = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content for piece in pieces if piece.choices) == (
        whole.choices[0].message.content
    )
    assert len(pieces) > 4
    assert pieces[-1].usage == whole.usage
    media = whole.usage.prompt_tokens_details.model_extra["media"]
    assert media == [
        {"type": "image", "where": "messages[0].content[0].image_url", "tokens": 25, "width": 160, "height": 160}
    ]


def test_choices_logprobs_and_stops(server: Running) -> None:
    client = server.client(timeout=300)
    fields = {"model": "tiny-vl", "messages": ask("What is this?", data_url(circle()))}
    answer = client.chat.completions.create(**fields, temperature=0, n=2, logprobs=True, top_logprobs=2, stop=" red")
    assert [choice.message.content for choice in answer.choices] == ["The picture shows a"] * 2
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].model_extra["stop_reason"] == " red"
    position = answer.choices[0].logprobs.content[0]
    assert (position.token, position.bytes, len(position.top_logprobs)) == ("The", [84, 104, 101], 2)
    text = client.completions.create(model="tiny-vl", prompt="Hello", max_tokens=3, logprobs=2, temperature=0)
    assert len(text.choices[0].logprobs.tokens) == 3
    assert text.usage.completion_tokens == 3


def test_errors_say_where(server: Running) -> None:
    client = server.client(timeout=300)
    cut = data_url(circle())[:200]
    with pytest.raises(openai.BadRequestError, match=r"truncated|damaged") as refused:
        client.chat.completions.create(model="tiny-vl", messages=ask("x", data_url(circle()), cut))
    assert refused.value.param == "messages[0].content[1].image_url"
    with pytest.raises(openai.BadRequestError, match="maximum context length is 512") as refused:
        client.chat.completions.create(model="tiny-vl", messages=ask("Hello " * 3000))
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="out of vocabulary"):
        client.completions.create(model="tiny-vl", prompt=[5, 99999])
    with pytest.raises(openai.BadRequestError, match="mm_processor_kwargs"):
        client.chat.completions.create(
            model="tiny-vl", messages=ask("x"), extra_body={"mm_processor_kwargs": {"max_pixels": 1000}}
        )
    longest = client.completions.create(
        model="tiny-vl", prompt="Hello", max_tokens=100_000, temperature=0, extra_body={"ignore_eos": True}
    )
    assert longest.usage.total_tokens == 512  # as with the native engine: what the context leaves


def test_tokenize(server: Running) -> None:
    body = {"model": "tiny-vl", "messages": ask("Hi", data_url(circle())), "return_token_strs": True}
    answer = httpx.post(f"{server.url}/tokenize", json=body, timeout=60).json()
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    text = httpx.post(f"{server.url}/detokenize", json={"model": "tiny-vl", "tokens": answer["tokens"][-3:]}).json()
    assert text["prompt"]


def test_who_hangs_up_stops_vllm(server: Running) -> None:
    stream = slow(server)
    next(iter(stream))
    stream.close()
    server.until("the end of the request", lambda: server.metric("requests_running") == 0)
    # A client that does not read holds up nobody else.
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as idle:
        body = b'{"model":"tiny-vl","prompt":"Hello","max_tokens":450,"stream":true,"ignore_eos":true}'
        idle.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        idle.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = server.client(timeout=300).completions.create(model="tiny-vl", prompt="Hello", max_tokens=4)
        assert answer.usage.completion_tokens == 4


def test_a_stopped_engine_is_noticed_and_replaced(server: Running) -> None:
    processes = family(server)
    with pytest.raises(openai.APIError, match="stopped by a signal"):
        after_three(slow(server), lambda: called(processes, "EngineCore").send_signal(signal.SIGSTOP))
    gone(processes)
    server.until("another vLLM", lambda: ready(server), START_S)


def test_a_killed_vllm_is_replaced(server: Running) -> None:
    processes = family(server)
    with pytest.raises(openai.APIError, match="vLLM, which runs the model 'tiny-vl'"):
        after_three(slow(server), lambda: called(processes, "api_server").kill())
    gone(processes)
    server.until("another vLLM", lambda: ready(server), START_S)
    answer = server.client(timeout=300).completions.create(model="tiny-vl", prompt="Hello", max_tokens=4)
    assert answer.usage.completion_tokens == 4


def test_nothing_outlives_a_killed_gateway(server: Running) -> None:
    processes = [server.worker(), *family(server)]
    assert len(processes) >= 4
    os.kill(server.process.pid, signal.SIGKILL)
    gone(processes)


def test_a_checkpoint_that_vllm_does_not_take_is_told_in_its_words(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(resolve("tiny-vl"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_size"] = 128  # the weights are of another size
    (folder / "config.json").write_text(json.dumps(config))
    with (
        pytest.raises(AssertionError, match=r"vLLM did not start: \w*Error") as failed,
        running.serve((str(folder), *FLAGS[1:]), tmp_path),
    ):
        pass
    assert "the server ended" in str(failed.value)
