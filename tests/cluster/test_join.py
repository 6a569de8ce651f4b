"""Machines that join a gateway: real `sensorium worker` processes, and what the gateway answers others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from sensorium.cluster.token import SIGNATURE_HEADER, key_of, sign
from tests.cluster.agents import TOKEN, agent, running
from tests.e2e.running import Running, serve

KEY = key_of(TOKEN)
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]


@contextmanager
def worker(gateway: Running, worker_id: str, host: str, *arguments: str, token: str = TOKEN) -> Iterator[Any]:
    """Run `sensorium worker`, on a loopback address of its own."""
    command = [sys.executable, "-m", "sensorium", "worker", "--manager-url", gateway.url, "--worker-id", worker_id]
    process = subprocess.Popen(
        [*command, "--host", host, "--port", "0", *arguments],
        env={**os.environ, "SENSORIUM_CLUSTER_TOKEN": token, "OMP_WAIT_POLICY": "passive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    line = ["--cluster-token", TOKEN, "--api-key", "secret", "--no-preload"]
    with serve(line, tmp_path_factory.mktemp("home"), api_key="secret") as started:
        yield started


def rows(gateway: Running) -> dict[str, dict[str, Any]]:
    answer = httpx.get(f"{gateway.url}/workers", headers={"Authorization": "Bearer secret"})
    assert answer.status_code == 200, answer.text
    return {row["worker_id"]: row for row in answer.json()["workers"]}


def until(what: str, condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


def status(gateway: Running, worker_id: str) -> str:
    return str(rows(gateway).get(worker_id, {}).get("status", "absent"))


def holder(gateway: Running) -> str | None:
    """The worker that holds tiny-vl."""
    held = [name for name, row in rows(gateway).items() if row["instances"]]
    return held[0] if held else None


def signed(gateway: Running, method: str, path: str, body: object = None, key: bytes = KEY, at: float = 0) -> Any:
    content = json.dumps(body or {}).encode()
    headers = {SIGNATURE_HEADER: sign(key, method, path, content, at or time.time())}
    return httpx.request(method, gateway.url + path, content=content, headers=headers, timeout=20)


def test_an_alias_comes_back_elsewhere_when_its_machine_is_lost(gateway: Running) -> None:
    """Two machines, and the gateway's own, of which one after the other is killed in the middle of an answer."""
    client = gateway.client(api_key="secret")
    with worker(gateway, "one", "127.0.0.2") as one, worker(gateway, "two", "127.0.0.3") as two:
        machines = {"one": one, "two": two}
        for name in machines:
            until("joining", lambda name=name: status(gateway, name) == "active")
        for _ in range(4):  # most free memory decides, and they are the same machine's: until each had its turn
            stream = client.chat.completions.create(
                model="tiny-vl", messages=HELLO * 5, max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
            )
            next(iter(stream))
            name = holder(gateway)
            if name is None:  # the gateway's own
                victim = gateway.worker().pid
            else:
                row = rows(gateway)[name]
                assert row["worker_url"].startswith("tcp://127.0.0.")
                assert row["total_memory_gb"] > row["available_memory_gb"] > 0
                assert row["gpu_info"]["gpu_count"] == len(row["gpu_info"]["gpu_names"])
                victim = machines.pop(name).pid
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(openai.APIError) as caught:
                for _ in stream:
                    pass
            assert "The worker of the model 'tiny-vl'" in caught.value.message
            if name is not None:
                assert status(gateway, name) == "inactive"
            answer = client.chat.completions.create(model="tiny-vl", messages=HELLO, max_tokens=20, temperature=0)
            assert "tiny-vl" in (answer.choices[0].message.content or "")
            if not machines:
                break


def test_a_worker_that_leaves_says_so_and_comes_again(gateway: Running) -> None:
    with worker(gateway, "guest", "127.0.0.5") as process:
        until("joining", lambda: status(gateway, "guest") == "active")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        until("leaving", lambda: status(gateway, "guest") == "absent", 5)
    with worker(gateway, "guest", "127.0.0.5") as process:
        until("joining again", lambda: status(gateway, "guest") == "active")
        zygotes = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.kill()
        until("its death", lambda: status(gateway, "guest") == "inactive" and not running(zygotes), 5)


def test_a_worker_that_is_told_to_end_finishes_what_it_has_and_takes_no_more(gateway: Running) -> None:
    client = gateway.client(api_key="secret")
    headers = {"Authorization": "Bearer secret"}
    with worker(gateway, "leaver", "127.0.0.13", "--grace", "300") as process:
        until("joining", lambda: status(gateway, "leaver") == "active")
        body = {"alias": "away", "model_name": "tiny-vl", "worker_id": "leaver"}
        answer = httpx.post(f"{gateway.url}/v1/models/register", json=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        stream = client.chat.completions.create(
            model="away", messages=HELLO, max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        assert holder(gateway) == "leaver"
        process.send_signal(signal.SIGTERM)
        until("draining", lambda: status(gateway, "leaver") == "draining", 5)
        with pytest.raises(openai.APIStatusError, match="not here now"):
            client.with_options(max_retries=0).chat.completions.create(model="away", messages=HELLO, max_tokens=1)
        assert process.poll() is None
        last = [chunk for chunk in stream if chunk.choices][-1]
        assert last.choices[0].finish_reason == "length"
        assert process.wait(10) == 0
        assert status(gateway, "leaver") == "absent"


def test_a_worker_does_not_wait_for_ever_for_what_runs(gateway: Running) -> None:
    client = gateway.client(api_key="secret")
    headers = {"Authorization": "Bearer secret"}
    for grace, num_signals in (("0.5", 1), ("600", 2)):
        with worker(gateway, "hasty", "127.0.0.14", "--grace", grace) as process:
            until("joining", lambda: status(gateway, "hasty") == "active")
            body = {"alias": "hasty", "model_name": "tiny-vl", "worker_id": "hasty"}
            httpx.post(f"{gateway.url}/v1/models/register", json=body, headers=headers)
            stream = client.chat.completions.create(
                model="hasty", messages=HELLO, max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
            )
            next(iter(stream))
            for _ in range(num_signals):
                process.send_signal(signal.SIGTERM)
                until("draining", lambda: status(gateway, "hasty") in ("draining", "absent"), 5)
            assert process.wait(10) == 0
            with pytest.raises(openai.APIError, match="worker of the model 'hasty'"):
                list(stream)


def test_a_stopped_machine_is_inactive_and_comes_back_by_itself(gateway: Running) -> None:
    with worker(gateway, "sleeper", "127.0.0.6") as process:
        until("joining", lambda: status(gateway, "sleeper") == "active")
        process.send_signal(signal.SIGSTOP)
        until("its silence being noticed", lambda: status(gateway, "sleeper") == "inactive", 15)
        process.send_signal(signal.SIGCONT)
        until("coming back", lambda: status(gateway, "sleeper") == "active", 15)


def test_a_gateway_that_is_killed_is_found_again(tmp_path: Path) -> None:
    line = ["--cluster-token", TOKEN, "--no-preload", "--port"]
    with serve(line[:-1], tmp_path) as first, worker(first, "faithful", "127.0.0.7") as process:
        until("joining", lambda: httpx.get(f"{first.url}/workers").json()["workers"])
        first.process.kill()
        first.process.wait()
        time.sleep(0.5)
        assert process.poll() is None
        command = [sys.executable, "-m", "sensorium", "serve", *line, first.url.rpartition(":")[2]]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as second:
            try:

                def active() -> bool:
                    with suppress(httpx.TransportError):
                        found = httpx.get(f"{first.url}/workers").json()["workers"]
                        return [row["status"] for row in found] == ["active"]
                    return False

                until("being found again", active)
            finally:
                second.terminate()


def test_a_worker_with_a_wrong_token_ends_with_a_sentence(gateway: Running) -> None:
    with worker(gateway, "stranger", "127.0.0.8", token="the wrong token, long enough") as process:
        output = process.communicate(timeout=40)[0]
        assert process.returncode == 2
    assert "does not take this worker: The signature is not of this cluster's token." in output
    assert "stranger" not in rows(gateway)


def test_registering_takes_the_token_and_an_api_key_is_not_enough(gateway: Running) -> None:
    body = {"worker_id": "evil", "worker_url": "tcp://127.0.0.1:22"}
    with_key = httpx.post(f"{gateway.url}/workers/register", json=body, headers={"Authorization": "Bearer secret"})
    assert (with_key.status_code, with_key.json()["code"]) == (401, "not_signed")
    for method, path in (("POST", "/workers/evil/heartbeat"), ("DELETE", "/workers/evil/unregister")):
        answer = httpx.request(method, gateway.url + path, headers={"Authorization": "Bearer secret"})
        assert answer.status_code == 401, answer.text
    wrong = signed(gateway, "POST", "/workers/register", body, key_of("some other secret text"))
    assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong_token")
    old = signed(gateway, "POST", "/workers/register", body, at=time.time() - 1000)
    assert (old.status_code, old.json()["code"]) == (401, "wrong_time")
    assert httpx.get(f"{gateway.url}/workers").status_code == 401


def test_what_is_wrong_with_a_registration_is_said(gateway: Running) -> None:
    def register(**body: object) -> tuple[int, str]:
        answer = signed(gateway, "POST", "/workers/register", body)
        return answer.status_code, answer.json()["message"]

    status, message = register(worker_id="x", worker_url="tcp://127.0.0.1:9")
    assert status == 503
    assert message.startswith("The worker 'x' at tcp://127.0.0.1:9 cannot be reached: Connection refused.")
    port = gateway.url.rpartition(":")[2]
    status, message = register(worker_id="x", worker_url=f"http://127.0.0.1:{port}")
    assert status == 503
    assert "cannot be reached" in message or "no sensorium worker" in message
    assert register(worker_id="x", worker_url="nonsense")[0] == 400
    assert register(worker_id="a/b", worker_url="tcp://127.0.0.1:9")[0] == 400
    assert register(worker_id="local", worker_url="tcp://127.0.0.1:9")[0] == 400
    assert register(worker_url="tcp://127.0.0.1:9") == (400, register(worker_url="tcp://127.0.0.1:9")[1])
    assert signed(gateway, "POST", "/workers/nobody/heartbeat").status_code == 404
    assert signed(gateway, "DELETE", "/workers/nobody/unregister").status_code == 404
    assert signed(gateway, "POST", "/workers/register", {"worker_id": "x" * 70000}).status_code == 413


def test_one_name_is_one_machine(gateway: Running) -> None:
    with agent("127.0.0.9", "twin") as first, agent("127.0.0.10", "twin") as second:
        body = {"worker_id": "twin", "worker_url": first.url, "gpu_info": {"gpu_count": 0}}
        together: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: together.append(signed(gateway, "POST", "/workers/register", body).status_code)
            )
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == [200] * 5
        other = signed(gateway, "POST", "/workers/register", {**body, "worker_url": second.url})
        assert (other.status_code, other.json()["code"]) == (409, "already_registered")
        assert signed(gateway, "POST", "/workers/twin/heartbeat").json()["status"] == "success"
        first.process.kill()
        until("its death", lambda: status(gateway, "twin") == "inactive", 5)
        assert signed(gateway, "POST", "/workers/twin/heartbeat").status_code == 404
        assert signed(gateway, "POST", "/workers/register", {**body, "worker_url": second.url}).status_code == 200
        assert signed(gateway, "DELETE", "/workers/twin/unregister").status_code == 200


def test_without_a_cluster_nobody_joins_and_the_list_is_empty() -> None:
    from tests.server.serving import served

    with served() as server:
        assert httpx.get(f"{server.url}/workers").json() == {"workers": []}
        answer = httpx.post(f"{server.url}/workers/register", json={})
        assert (answer.status_code, answer.json()["code"]) == (403, "no_cluster")
        assert httpx.get(f"{server.url}/workers/x/heartbeat").status_code == 404
