"""Server-sent events of what happens to models."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sensorium.registry.store import Store
from tests.server.registering import register
from tests.server.serving import Served, served, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(store=Store(str(tmp_path / "registry.db"))) as running:
        yield running


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
