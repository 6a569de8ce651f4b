"""Registering, loading, unloading and removing models over HTTP; who may; and waiting for a model, or not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sensorium.registry.catalog import Catalog
from sensorium.registry.status import Fit
from sensorium.registry.store import Store
from sensorium.settings import ServerSettings
from tests.server.serving import Served, served, wait_until

EYES = {"alias": "eyes", "model_name": "tiny-vl"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(store=Store(str(tmp_path / "registry.db"))) as running:
        yield running


def register(server: Served, body: dict[str, Any] | None = None, query: str = "", **more: Any) -> httpx.Response:
    return server.post(f"/v1/models/register{query}", {**EYES, **(body or {})}, **more)


def state(server: Served, alias: str = "eyes") -> str:
    return str(httpx.get(f"{server.url}/v1/models/{alias}").json()["state"])


def test_the_answers_of_the_serverless_service(server: Served) -> None:
    before = time.time()
    answer = register(server, {"gpu_memory_utilization": 0.9, "max_model_len": None, "tensor_parallel_size": 1}).json()
    assert (answer["status"], answer["message"]) == ("success", "Model eyes registered successfully")
    routing = answer["routing"]
    assert (routing["alias"], routing["model_name"], routing["worker_id"]) == ("eyes", "tiny-vl", "local")
    assert routing["worker_url"] == server.url
    assert server.url.endswith(f":{routing['vllm_port']}")
    assert before <= routing["created_at"] <= time.time()

    again = register(server)
    assert again.status_code == 200
    assert (again.json()["status"], again.json()["message"]) == ("exists", "Model eyes already registered")
    assert again.json()["routing"] == routing

    listed = httpx.get(server.url + "/v1/models").json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["echo", "eyes"]
    assert [card["state"] for card in listed["data"]] == ["ready", "registered"]
    assert listed["models"][1] == routing
    assert listed["data"][1]["created"] == int(routing["created_at"])

    gone = httpx.delete(server.url + "/v1/models/eyes")
    assert gone.json() == {"status": "success", "message": "Model eyes unregistered"}
    missing = httpx.delete(server.url + "/v1/models/eyes")
    assert (missing.status_code, missing.json()["status"]) == (404, "error")
    assert missing.json()["message"] == "Model eyes not found"
    incomplete = server.post("/v1/models/register", {"alias": "eyes"})
    assert (incomplete.status_code, incomplete.json()["status"]) == (400, "error")
    assert incomplete.json()["message"].startswith("alias and model_name are required")


def test_a_registered_model_is_loaded_by_the_first_request(server: Served) -> None:
    register(server)
    assert state(server) == "registered"
    answer = server.chat("hello", model="eyes")
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
    assert state(server) == "ready"
    assert (
        server.openai.chat.completions.create(model="echo", messages=[{"role": "user", "content": "x"}]).model == "echo"
    )
    assert server.chat("hello").json()["model"] == "echo"  # a request without `model` still gets the one named at start


def test_something_else_under_the_same_alias(server: Served) -> None:
    register(server)
    other = register(server, {"max_model_len": 64})
    assert (other.status_code, other.json()["code"]) == (409, "already_registered")
    assert "max_model_len is None there and 64 here" in other.json()["message"]
    assert register(server, {"max_model_len": 64, "replace": True}).json()["status"] == "success"
    assert server.pool.specs["eyes"].settings.max_model_len == 64
    assert register(server, {"alias": "echo"}).status_code == 409


@pytest.mark.parametrize("alias", ["Qwen/Qwen3-VL-2B", "a/b/c/d", "名字", "a b", "events2", "x:y"])
def test_names_with_slashes_and_others(server: Served, alias: str) -> None:
    assert register(server, {"alias": alias}).status_code == 200
    url = f"{server.url}/v1/models/{alias}"
    assert httpx.get(url).json()["id"] == alias
    assert httpx.post(url + "/load").json()["model"]["state"] == "ready"
    assert httpx.post(url + "/unload").json()["model"]["state"] == "unloaded"
    assert httpx.delete(url).status_code == 200
    assert httpx.get(url).status_code == 404


def test_load_and_unload(server: Served) -> None:
    server.pool.load_s = 3.0
    register(server)
    assert httpx.post(server.url + "/v1/models/eyes/load?wait=0").status_code == 202
    assert state(server) == "loading"
    loaded = httpx.post(server.url + "/v1/models/eyes/load", timeout=20).json()
    assert (loaded["status"], loaded["model"]["state"], loaded["model"]["num_loads"]) == ("success", "ready", 1)
    assert httpx.post(server.url + "/v1/models/eyes/unload").json()["model"]["state"] == "unloaded"
    assert httpx.post(server.url + "/v1/models/none/load").status_code == 404
    assert httpx.post(server.url + "/v1/models//load").status_code == 404


@pytest.mark.parametrize(
    ("fields", "query"), [({"preload": True}, ""), ({}, "?wait=1"), ({"preload": True}, "?wait=true")]
)
def test_registering_may_wait_until_it_is_loaded(server: Served, fields: dict[str, Any], query: str) -> None:
    server.pool.load_s = 0.1
    assert register(server, fields, query).json()["routing"]["state"] == "ready"


def test_registering_does_not_wait_otherwise(server: Served) -> None:
    server.pool.load_s = 3.0
    assert register(server).json()["routing"]["state"] == "registered"
    assert register(server, {"alias": "b", "preload": True}, "?wait=0").json()["routing"]["state"] == "loading"


def test_what_does_not_load_is_registered_all_the_same_and_says_why(server: Served) -> None:
    server.pool.unavailable = "eyes"
    answer = register(server, query="?wait=1")
    assert (answer.status_code, answer.json()["status"], answer.headers["retry-after"]) == (503, "error", "7")
    assert answer.json()["message"] == "Model eyes is registered. Failed to start instance: It does not fit."
    whole = httpx.get(server.url + "/v1/models/eyes").json()
    assert (whole["state"], whole["last_error"]) == ("failed", "It does not fit.")


def test_what_will_never_fit_is_told(server: Served) -> None:
    server.pool.fits["eyes"] = Fit("cannot", 12 << 30, budget_bytes=8 << 30, lower="Lower max_model_len to 2048.")
    answer = register(server).json()
    assert answer["message"] == (
        "Model eyes registered successfully, but it will not load: it needs 12.00 GiB of host memory, models may take "
        "8.00 GiB. Lower max_model_len to 2048."
    )
    assert answer["fit"]["answer"] == "cannot"


def test_keys_are_kept_and_never_shown(server: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    remote = {"engine": "remote", "base_url": "https://api.example.com/v1", "api_key": "sk-secret"}
    texts = [register(server, remote).text]
    texts.append(register(server, {**remote, "api_key": "sk-secret2"}).text)
    texts += [httpx.get(server.url + path).text for path in ("/v1/models", "/v1/models/eyes", "/metrics")]
    with httpx.stream("GET", server.url + "/v1/models/eyes/events") as events:
        lines = events.iter_lines()
        texts.append(next(lines))
    assert json.loads(texts[3])["registered"]["api_key"] == "***"
    assert not any("sk-secret" in text for text in (*texts, caplog.text))
    assert Catalog(str(tmp_path / "registry.db")).snapshot().kept["eyes"].spec.settings.api_key == "sk-secret"


def test_a_registry_that_cannot_be_written(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.errors import RegistryUnavailable

    register(server)

    def full(*_: object, **__: object) -> None:
        raise RegistryUnavailable("The disk is full.", code="registry_full")

    with monkeypatch.context() as broken:
        broken.setattr(Catalog, "put", full)
        broken.setattr(Catalog, "remove", full)
        for answer in (register(server, {"alias": "b"}), httpx.delete(server.url + "/v1/models/eyes")):
            assert (answer.status_code, answer.json()["code"], answer.json()["status"]) == (
                503,
                "registry_full",
                "error",
            )
        assert server.chat("hi", model="eyes").status_code == 200
    assert register(server, {"alias": "b"}).status_code == 200


# Who may change the server.

CHANGES = [
    ("POST", "/v1/models/register", EYES),
    ("POST", "/v1/models/eyes/load", None),
    ("POST", "/v1/models/eyes/unload", None),
    ("DELETE", "/v1/models/eyes", None),
]


def codes(server: Served, **headers: str) -> set[Any]:
    """The codes with which every change is refused; None: it is not."""
    found = set()
    for method, path, body in CHANGES:
        answer = httpx.request(method, server.url + path, json=body, headers=headers)
        found.add(answer.json().get("code") if answer.status_code >= 400 else None)
        assert answer.status_code not in (401, 403) or answer.json()["error"]["message"]
    return found


def test_pages_of_other_sites_may_not(server: Served) -> None:
    host = server.url.removeprefix("http://")
    for origin in ("http://evil.example", "null", f"http://{host}.evil.example", "http://127.0.0.1:1", ""):
        assert codes(server, Origin=origin) == {"cross_origin"}, origin
    for site in ("cross-site", "same-site"):
        assert codes(server, **{"Sec-Fetch-Site": site}) == {"cross_origin"}
    assert server.pool.names() == ["echo"]
    assert codes(server, Origin=server.url, **{"Sec-Fetch-Site": "same-origin"}) == {None}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_what_a_form_can_send_is_refused(server: Served, kind: str) -> None:
    body = json.dumps(EYES).encode()
    headers = {"Content-Type": kind} if kind else {}
    answer = httpx.post(server.url + "/v1/models/register", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "content_type")
    assert server.pool.names() == ["echo"]
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert httpx.post(server.url + "/v1/models/register", content=body, headers=charset).status_code == 200


def test_without_keys_only_this_machine_by_its_own_name(server: Served) -> None:
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        assert codes(server, **{header: "10.0.0.1"}) == {"not_local"}
    port = server.url.rpartition(":")[2]
    for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example"):
        assert codes(server, Host=host) == {"not_local"}, host  # a name that was made to point here
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert codes(server, Host=host) == {None}, host


def test_from_another_machine_only_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.server import admin

    monkeypatch.setattr(admin, "_is_loopback", lambda host: False)
    with served() as server:
        assert codes(server) == {"not_local"}
    with served(ServerSettings(api_keys=("k",))) as server:
        assert codes(server, Authorization="Bearer k") == {None}


def test_admin_keys_are_apart_from_those_for_asking() -> None:
    with served(ServerSettings(api_keys=("ask",), admin_keys=("one", "two"))) as server:
        assert codes(server) == codes(server, Authorization="Bearer x") == {"invalid_api_key"}
        assert codes(server, Authorization="Bearer ask") == {"admin_key_required"}
        for key in ("one", "two"):
            assert codes(server, Authorization=f"Bearer {key}") == {None}
        for key in ("ask", "one"):
            assert httpx.get(server.url + "/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    with served(ServerSettings(admin_keys=("one",))) as server:
        assert codes(server) == codes(server, Authorization="Bearer x") == {"admin_key_required"}
        assert server.chat().status_code == 200  # everybody may ask
        assert codes(server, Authorization="Bearer one") == {None}


def test_options_that_run_code_need_a_flag() -> None:
    def body(**engine_args: Any) -> dict[str, Any]:
        return {"engine": "vllm", "engine_args": engine_args}

    with served() as server:
        for wrong in (
            body(trust_remote_code=True),
            {"trust_remote_code": True},
            {"engine": "vllm", "engine_python": "/bin/sh"},
        ):
            answer = register(server, wrong)
            assert (answer.status_code, answer.json()["code"]) == (403, "engine_args_forbidden"), wrong
        assert server.pool.names() == ["echo"]
    with served(ServerSettings(trust_engine_args=True)) as server:
        answer = register(server, {"engine": "vllm", "engine_python": "/bin/sh", "engine_args": {"hf_overrides": {}}})
        assert answer.status_code == 200


# Waiting for a model, or not.


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


# Events.


class Watching:
    """Reads events in a thread."""

    def __init__(self, server: Served, path: str = "/v1/models/events") -> None:
        self.lines: list[str] = []
        self.thread = threading.Thread(target=self._read, args=(server.url + path,))
        self.thread.start()
        wait_until(lambda: bool(self.lines))

    def _read(self, url: str) -> None:
        with httpx.stream("GET", url, timeout=30) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in response.iter_lines():
                self.lines.append(line)

    @property
    def events(self) -> list[tuple[str, str, str]]:
        found = [json.loads(line.removeprefix("data: ")) for line in self.lines if line.startswith("data: {")]
        assert all(line.startswith("data:") for line in self.lines if line)
        assert all(event["object"] == "model.event" for event in found)
        return [(event["event"], event["alias"], (event["status"] or {}).get("state")) for event in found]


def test_events_of_all_models_until_the_server_ends(tmp_path: Path) -> None:
    with served() as server:
        watching = Watching(server)
        register(server)
        server.chat("hi", model="eyes")
        httpx.delete(server.url + "/v1/models/eyes")
        wait_until(lambda: len(watching.events) >= 5)
        assert watching.events == [
            ("snapshot", "echo", "ready"),
            ("changed", "eyes", "registered"),
            ("changed", "eyes", "loading"),
            ("changed", "eyes", "ready"),
            ("removed", "eyes", None),
        ]
        server.gateway.gate.draining = True
        watching.thread.join(3)
        assert not watching.thread.is_alive()
        assert watching.lines[-2:] == ["data: [DONE]", ""] or watching.lines[-1] == "data: [DONE]"
        assert (server.gateway.watchers, server.pool.told) == (0, [])


def test_events_of_one_model_end_when_it_is_removed(server: Served) -> None:
    register(server)
    register(server, {"alias": "other"})
    watching = Watching(server, "/v1/models/eyes/events")
    server.chat("hi", model="other")
    server.chat("hi", model="eyes")
    httpx.delete(server.url + "/v1/models/eyes")
    watching.thread.join(3)
    assert [event[1] for event in watching.events] == ["eyes"] * 4
    assert watching.events[-1][0] == "removed"
    assert httpx.get(server.url + "/v1/models/none/events").status_code == 404
    assert httpx.head(server.url + "/v1/models/events").status_code == 200


def test_who_leaves_the_events_is_forgotten(server: Served) -> None:
    with httpx.stream("GET", server.url + "/v1/models/events") as events:
        lines = events.iter_lines()
        next(lines)
        assert server.gateway.watchers == 1
    wait_until(lambda: server.gateway.watchers == 0)
    wait_until(lambda: server.pool.told == [])


def test_not_too_many_watch(server: Served) -> None:
    server.gateway.watchers = 64
    answer = httpx.get(server.url + "/v1/models/events")
    assert (answer.status_code, answer.json()["code"]) == (503, "server_overloaded")


def test_progress_alone_is_told_a_few_times_a_second(server: Served) -> None:
    import msgspec

    register(server)
    watching = Watching(server, "/v1/models/eyes/events")
    status = msgspec.structs.replace(server.pool.statuses["eyes"], state="loading", phase="reading weights")
    for step in range(200):
        server.pool.change(msgspec.structs.replace(status, fraction=step / 200))
    server.pool.change(msgspec.structs.replace(status, state="ready", phase=""))
    httpx.delete(server.url + "/v1/models/eyes")
    watching.thread.join(5)
    assert [event[2] for event in watching.events][-2:] == ["ready", None]
    assert len(watching.events) <= 10
