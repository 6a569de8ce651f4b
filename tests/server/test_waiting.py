"""Clients that wait for a model to be loaded, and those that do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sensorium.registry.store import Store
from tests.server.registering import register, state
from tests.server.serving import Served, served, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(store=Store(str(tmp_path / "registry.db"))) as running:
        yield running


def test_who_does_not_wait_is_told_how_far_it_is(server: Served) -> None:
    server.pool.load_s = 4.0
    register(server)
    chat = {"model": "eyes", "messages": [{"role": "user", "content": "hi"}]}
    text = {"model": "eyes", "prompt": "hi"}
    for path, body in (
        ("chat/completions", chat),
        ("chat/completions", {**chat, "stream": True}),
        ("completions", text),
    ):
        for query, headers in (("?wait=0", {}), ("", {"Prefer": "wait=0"}), ("", {"Prefer": "respond-async"})):
            answer = server.post(f"/v1/{path}{query}", body, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
            error = answer.json()["error"]
            assert (error["type"], error["code"], error["status"]) == ("model_loading", "model_not_ready", "starting")
            assert (error["phase"], error["fraction"], error["retry_after"]) == ("reading weights", 0.5, 3)
    assert server.post("/tokenize?wait=0", {"model": "eyes", "prompt": "hi"}).status_code == 503
    short = server.post("/v1/chat/completions?wait=0.05", chat)
    assert (short.status_code, short.json()["code"]) == (503, "model_not_ready")
    assert "not loaded within 0.05 s" in short.json()["message"]
    assert server.post("/v1/chat/completions?wait=10", chat).status_code == 200
    assert server.post("/v1/chat/completions?wait=0", chat).status_code == 200
    wrong = server.post("/v1/chat/completions?wait=soon", chat)
    assert (wrong.status_code, wrong.json()["param"]) == (400, "wait")


def test_a_waiting_client_that_hangs_up_leaves(server: Served) -> None:
    server.pool.load_s = 4.0
    register(server)
    body = {"model": "eyes", "messages": [{"role": "user", "content": "hi"}]}
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + "/v1/chat/completions", json={**body, "stream": stream}, timeout=0.2)
    wait_until(lambda: server.pool.waiting == 0 and len(server.gateway.gate) == 0)
    assert server.pool.leases == 0
    assert state(server) == "loading"  # which goes on
    wait_until(lambda: state(server) == "ready", 20)
    assert server.chat(model="eyes").status_code == 200
