"""Clients that leave, models that die, too many requests, and the end of the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import openai
import pytest

from sensorium.errors import ConfigurationError, ModelUnavailable
from sensorium.server import connection, read
from sensorium.server.run import run as serve_until_signal
from sensorium.settings import ServerSettings
from tests.fakes import EchoModel, FakePool
from tests.server.serving import served, wait_until

ROOT = Path(__file__).parents[2]
BODY = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_its_request_along(stream: bool) -> None:
    with served(model=EchoModel(delay_s=0.02)) as server:
        body = {"messages": [{"role": "user", "content": "x" * 1000}], "stream": stream}
        for _ in range(3):
            if stream:
                with httpx.stream("POST", server.url + "/v1/chat/completions", json=body) as response:
                    next(response.iter_lines())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    httpx.post(server.url + "/v1/chat/completions", json=body, timeout=0.1)
        wait_until(lambda: server.model.closed_early == 3)
        assert (server.model.running, server.pool.leases, len(server.gateway.gate)) == (0, 0, 0)
        assert server.gateway.gate.draining is False


def test_leaving_while_prompts_run_side_by_side() -> None:
    with served(model=EchoModel(delay_s=0.02)) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + "/v1/completions", json={"prompt": ["x" * 50] * 4}, timeout=0.1)
        wait_until(lambda: server.model.closed_early == 4)
        assert (server.model.running, server.pool.leases) == (0, 0)


def test_a_model_that_dies_while_it_streams() -> None:
    with served(model=EchoModel(die_after=2)) as server:
        lines = [line for line in server.chat("hello", stream=True).text.split("\n") if line]
        assert len(lines) == 4  # the role, two tokens, the error
        assert "[DONE]" not in lines[-1]
        error = json.loads(lines[-1].removeprefix("data: "))
        assert (error["object"], error["error"]["type"]) == ("error", "worker_died")
        with pytest.raises(openai.APIError, match="The worker ended"):
            list(server.openai.chat.completions.create(model="echo", messages=BODY["messages"], stream=True))
        whole = server.chat("hello")
        assert (whole.status_code, whole.json()["type"]) == (500, "worker_died")


def test_a_stream_that_just_ends_is_an_error() -> None:
    model = EchoModel()
    model.answer = lambda text, request, room: ([*text], None, None)  # type: ignore[method-assign,assignment]
    with served(model=model) as server:
        assert server.chat("hello").json()["type"] == "worker_died"
        text = server.chat("hello", stream=True).text
        assert "worker_died" in text
        assert "[DONE]" not in text


def test_more_than_the_server_takes() -> None:
    with served(ServerSettings(max_queued=2), EchoModel(delay_s=0.02)) as server:
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(server.chat("x" * 120))) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.model.running == 2)
        refused = server.chat("x")
        assert (refused.status_code, refused.json()["type"]) == (503, "overloaded_error")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert httpx.get(server.url + "/health").status_code == 200
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert server.chat("x").status_code == 200


def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read.read_body, "__defaults__", (0.2,))
    with served() as server, _connect(server.url) as (raw, replies):
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert replies.readline().startswith(b"HTTP/1.1 400")
        assert b"body_timeout" in replies.read()  # to the end: the connection is closed


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nx: y", b"\r\n"])
def test_a_head_that_does_not_come(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connection, "HEAD_DEADLINE_S", 0.2)
    with served() as server, _connect(server.url) as (raw, replies):
        raw.sendall(sent)
        start = time.monotonic()
        assert replies.read() == b""
        assert time.monotonic() - start < 8


def test_a_head_without_end() -> None:
    with served() as server, _connect(server.url) as (raw, replies):
        raw.sendall(b"GET /health HTTP/1.1\r\n")
        try:
            for _ in range(100):
                raw.sendall(b"x: " + b"y" * 10_000 + b"\r\n")
                time.sleep(0.001)
            reply = replies.read()
        except ConnectionError:
            reply = b""
        assert b"200" not in reply
        assert httpx.get(server.url + "/health").status_code == 200


def test_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_S", 0.2)
    with served(model=EchoModel(max_model_len=200_000)) as server:
        with _connect(server.url) as (raw, _):
            body = json.dumps({"messages": [{"role": "user", "content": "x" * 60_000}], "stream": True}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            raw.sendall(head.encode() + body)
            wait_until(lambda: server.model.closed_early == 1)
        assert (server.model.running, server.pool.leases) == (0, 0)


def test_connections_are_used_again() -> None:
    with served() as server, httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.post("/v1/chat/completions", json=BODY).status_code == 200
            assert client.post("/v1/chat/completions", json={**BODY, "stream": True}).text.endswith("[DONE]\n\n")
        assert len(client._transport._pool.connections) == 1  # type: ignore[attr-defined]


@contextmanager
def _connect(url: str) -> Iterator[tuple[socket.socket, IO[bytes]]]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw, raw.makefile("rb") as replies:
        yield raw, replies


PROGRAM = """
    import logging, sys
    from sensorium.server.run import run
    from sensorium.settings import ServerSettings
    from tests.fakes import EchoModel, FakePool, fetch_data

    logging.basicConfig(level=logging.INFO)
    grace_s, unavailable = float(sys.argv[1]), sys.argv[2] or None
    pool = FakePool({"echo": EchoModel(delay_s=0.02)}, unavailable)
    settings = ServerSettings(port=0, grace_s=grace_s)
    code = run(settings, lambda: pool, lambda url: print(url, flush=True), fetch_data)
    assert pool.closed
    sys.exit(code)
"""


@contextmanager
def process(grace_s: float, unavailable: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(grace_s), unavailable],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert running.stdout is not None
        yield running, running.stdout.readline().strip()
    finally:
        running.kill()
        running.communicate()


def _streamed(url: str, length: int, into: list[Any]) -> threading.Thread:
    def ask() -> None:
        body = {"messages": [{"role": "user", "content": "x" * length}], "stream": True}
        into.append(httpx.post(url + "/v1/chat/completions", json=body, timeout=20).text)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def _running(url: str) -> bool:
    return 'sensorium_engine_num_running{model="echo"} 1.0' in httpx.get(url + "/metrics").text


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones() -> None:
    with process(grace_s=20) as (server, url):
        assert httpx.get(url + "/ready").status_code == 200
        texts: list[str] = []
        thread = _streamed(url, 40, texts)
        wait_until(lambda: _running(url))
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(url + "/ready").status_code == 503)
        refused = httpx.post(url + "/v1/chat/completions", json=BODY)
        assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
        assert refused.headers["connection"] == "close"
        assert refused.headers["retry-after"]
        thread.join()
        assert texts[0].endswith("data: [DONE]\n\n")
        assert texts[0].count('"content":"x"') == 40
        assert server.wait(5) == 0


def test_grace_that_runs_out_is_told_to_the_client() -> None:
    with process(grace_s=0.3) as (server, url):
        texts: list[str] = []
        thread = _streamed(url, 1000, texts)
        wait_until(lambda: _running(url))
        server.send_signal(signal.SIGINT)
        thread.join()
        assert "[DONE]" not in texts[0]
        last = json.loads(texts[0].rstrip("\n").split("\n")[-1].removeprefix("data: "))
        assert last["error"]["code"] == "shutting_down"
        assert server.wait(5) == 0


def test_a_model_that_does_not_load_ends_the_server() -> None:
    with process(grace_s=1, unavailable="echo") as (server, url):
        assert url == ""
        assert server.wait(5) == 1
        assert server.stderr is not None
        assert "It does not fit." in server.stderr.read()


@pytest.mark.parametrize(("cause", "code"), [(None, 1), (ConfigurationError("A shard is missing."), 2)])
def test_a_checkpoint_that_is_at_fault_ends_it_with_2(cause: Exception | None, code: int) -> None:
    class Broken(FakePool):
        @asynccontextmanager
        async def lease(self, name: str, *, wait: bool = True, near: str = "") -> AsyncIterator[EchoModel]:
            raise ModelUnavailable("It could not be loaded.") from cause
            yield

    pool = Broken({"echo": EchoModel()})
    assert serve_until_signal(ServerSettings(port=0), lambda: pool) == code
    assert pool.closed


def test_a_taken_port_is_named() -> None:
    from sensorium.errors import ConfigurationError
    from sensorium.server.run import listen

    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port}: Address already in use\. Choose"):
            listen("127.0.0.1", port)
