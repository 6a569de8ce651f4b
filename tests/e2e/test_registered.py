"""Registered models end to end: real checkpoints that break, a gateway that is killed, and what is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from sensorium.registry.hub import on_this_machine
from tests.e2e.running import Running, ask, serve

QUESTION = ask("How many shapes are there?")
BARE = ["--no-preload", "--max-model-len", "2048"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(BARE, tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    found = on_this_machine("tiny-vl")
    assert found is not None
    return Path(shutil.copytree(found, tmp_path / "copy"))


def register(running: Running, alias: str, model: Path, **fields: Any) -> httpx.Response:
    body = {"alias": alias, "model_name": str(model), **fields}
    return httpx.post(f"{running.url}/v1/models/register", json=body, timeout=60)


def status(running: Running, alias: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{running.url}/v1/models/{alias}", timeout=20).json()
    return found


def say(running: Running, alias: str) -> str | None:
    client = running.client(timeout=60)
    return client.chat.completions.create(model=alias, messages=QUESTION, max_tokens=8).choices[0].message.content  # type: ignore[arg-type]


def remove(running: Running, alias: str) -> None:
    httpx.delete(f"{running.url}/v1/models/{alias}", timeout=60).raise_for_status()


def test_weights_that_are_cut_short_are_told_and_mended_weights_serve(running: Running, copy: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    register(running, "cut", copy)
    with pytest.raises(openai.APIStatusError) as caught:
        say(running, "cut")
    assert caught.value.status_code in (400, 503)
    assert "model.safetensors" in caught.value.message
    assert status(running, "cut")["state"] == "failed"
    weights.write_bytes(whole)
    assert say(running, "cut")
    assert status(running, "cut")["state"] == "ready"
    remove(running, "cut")


@pytest.mark.parametrize("damage", ["garbage", "missing", "tokenizer"])
def test_broken_checkpoints_hurt_nobody_else(running: Running, copy: Path, damage: str) -> None:
    whole = on_this_machine("tiny-vl")
    assert whole is not None
    register(running, "whole", whole)
    assert say(running, "whole")
    if damage == "missing":
        (copy / "model.safetensors").unlink()
    elif damage == "garbage":
        (copy / "model.safetensors").write_bytes(os.urandom(1 << 16))
    else:
        (copy / "tokenizer.json").write_text("{")
    refused = register(running, "broken", copy)
    if refused.status_code == 200:
        with pytest.raises(openai.APIStatusError) as caught:
            say(running, "broken")
        assert caught.value.status_code in (400, 503)
        remove(running, "broken")
    else:
        assert refused.status_code == 400
        assert refused.json()["error"]["message"]
    assert say(running, "whole")
    remove(running, "whole")


def test_loads_unloads_and_removals_at_once_leave_a_server_that_serves(running: Running, copy: Path) -> None:
    outcomes: list[str] = []

    def churn(number: int) -> None:
        calls = [
            lambda: register(running, "churned", copy).status_code,
            lambda: httpx.post(f"{running.url}/v1/models/churned/load", json={}, timeout=60).status_code,
            lambda: httpx.post(f"{running.url}/v1/models/churned/unload", json={}, timeout=60).status_code,
            lambda: httpx.delete(f"{running.url}/v1/models/churned", timeout=60).status_code,
        ]
        for turn in range(8):
            code = calls[(number * 3 + turn * (number + 1)) % len(calls)]()
            outcomes.append(str(code))

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert set(outcomes) <= {"200", "404", "409", "503"}, "never a 500"
    register(running, "churned", copy)
    assert say(running, "churned")
    remove(running, "churned")
    ours = psutil.Process(running.process.pid)
    running.until("no worker is left behind", lambda: _num_workers(ours) == 0)


def _num_workers(process: psutil.Process) -> int:
    return sum(child.name().startswith("sensorium-worke") for child in process.children(recursive=True))


def test_a_killed_gateway_takes_its_workers_along_and_comes_back_with_its_models(tmp_path: Path, copy: Path) -> None:
    home = tmp_path / "home"
    with serve(BARE, home) as first:
        assert register(first, "kept", copy, idle_ttl=60).json()["status"] == "success"
        assert say(first, "kept")
        worker = first.worker()
        family = [*psutil.Process(first.process.pid).children(recursive=True)]
        assert worker in family
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
        deadline = time.monotonic() + 60
        while any(_lives(process) for process in family):
            assert time.monotonic() < deadline, "workers outlive their gateway"
            time.sleep(0.05)
    with serve(BARE, home) as second:
        assert status(second, "kept")["state"] == "registered"
        assert say(second, "kept")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_lost_in_mid_stream_is_replaced(running: Running, copy: Path, number: signal.Signals) -> None:
    register(running, "lost", copy)
    assert say(running, "lost")
    stream = running.client(timeout=90).chat.completions.create(
        model="lost",
        messages=QUESTION,  # type: ignore[arg-type]
        stream=True,
        max_tokens=1500,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    pid = status(running, "lost")["replicas"][0]["pid"]
    os.kill(pid, number)
    with pytest.raises(openai.APIError, match=r"worker of the model 'lost'.*(SIGKILL|stopped answering)"):
        for _ in stream:
            pass
    assert say(running, "lost")
    assert status(running, "lost")["num_deaths"] == 1
    remove(running, "lost")
