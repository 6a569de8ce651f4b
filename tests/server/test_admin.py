"""Who may change the server: by key, by place, and never a web page of another site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sensorium.registry.store import Store
from sensorium.settings import ServerSettings
from tests.server.registering import EYES, register
from tests.server.serving import Served, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(store=Store(str(tmp_path / "registry.db"))) as running:
        yield running


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


def test_headers_that_hold_no_address(server: Served) -> None:
    assert codes(server, Origin="http://[") == {"cross_origin"}
    for host in ("[", "[::1", "a:b:c]"):
        assert codes(server, Host=host) <= {"not_local"}, host
    assert server.pool.names() == ["echo"]
