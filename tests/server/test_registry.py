"""Registering, loading, unloading and removing models over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sensorium.registry.catalog import Catalog
from sensorium.registry.status import Fit
from sensorium.registry.store import Store
from sensorium.types import Outlook
from tests.server.registering import register, state
from tests.server.serving import Served, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(store=Store(str(tmp_path / "registry.db"))) as running:
        yield running


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
    ("fields", "query"), [({"preload": True}, ""), ({}, "?wait=true"), ({"preload": True}, "?wait=true")]
)
def test_registering_may_wait_until_it_is_loaded(server: Served, fields: dict[str, Any], query: str) -> None:
    server.pool.load_s = 0.1
    assert register(server, fields, query).json()["routing"]["state"] == "ready"


def test_waiting_for_a_load_ends_with_the_clients_patience(server: Served) -> None:
    server.pool.load_s = 10.0
    assert register(server, query="?wait=0.1").json()["routing"]["state"] == "loading"
    begun = time.monotonic()
    answer = httpx.post(server.url + "/v1/models/eyes/load?wait=0.1")
    assert (answer.status_code, answer.json()["message"]) == (202, "Model eyes is being loaded")
    assert time.monotonic() - begun < 5


def test_registering_does_not_wait_otherwise(server: Served) -> None:
    server.pool.load_s = 3.0
    assert register(server).json()["routing"]["state"] == "registered"
    assert register(server, {"alias": "b", "preload": True}, "?wait=0").json()["routing"]["state"] == "loading"


def test_what_does_not_load_is_registered_all_the_same_and_says_why(server: Served) -> None:
    server.pool.unavailable = "eyes"
    answer = register(server, query="?wait=true")
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


@pytest.mark.parametrize("path", ["eyes/load", "echo/unload", "register"])
def test_a_refused_request_has_changed_nothing(server: Served, path: str) -> None:
    register(server)
    before = httpx.get(server.url + "/v1/models").json()
    body = {"alias": "other", "model_name": "tiny-vl"} if path == "register" else None
    answer = httpx.post(f"{server.url}/v1/models/{path}?wait=soon", json=body)
    assert (answer.status_code, answer.json()["param"]) == (400, "wait")
    time.sleep(0.1)
    assert httpx.get(server.url + "/v1/models").json() == before


def test_a_model_that_goes_while_models_are_listed(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    register(server)
    told = server.pool.outlook

    def slow(name: str) -> Outlook:
        assert httpx.delete(server.url + "/v1/models/eyes").status_code == 200
        return told(name) if name in server.pool.outlooks else Outlook()

    monkeypatch.setattr(server.pool, "outlook", slow)  # reads a file, in a thread, while others change the registry
    listed = httpx.get(server.url + "/v1/models", timeout=20)
    assert listed.status_code == 200
    assert [card["id"] for card in listed.json()["data"]] == ["echo"]
    assert [routing["alias"] for routing in listed.json()["models"]] == ["echo"]
