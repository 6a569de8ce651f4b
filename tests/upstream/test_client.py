"""The connection to an upstream that does not do what it should."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sensorium.errors import UpstreamFailed
from sensorium.upstream.client import Client
from sensorium.upstream.failures import LOST, TIMED_OUT


@pytest.fixture
def silent() -> Iterator[Client]:
    """A client of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", "The server", {})
        yield client
        client.stop()


def tasks(client: Client) -> int:
    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    return client.wait(count())


def test_a_wait_that_is_over_is_a_typed_error_and_ends_what_was_asked(silent: Client) -> None:
    with pytest.raises(UpstreamFailed, match=r"The server said nothing for 0\.2 s") as caught:
        silent.wait(silent.text("GET", "models"), 0.2)
    assert caught.value.code == TIMED_OUT
    deadline = time.monotonic() + 30
    while tasks(silent):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_waits_when_it_is_stopped_is_told(silent: Client) -> None:
    found: list[BaseException] = []

    def ask() -> None:
        try:
            silent.wait(silent.text("GET", "models"))
        except BaseException as error:
            found.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.2)
    silent.stop()
    asking.join(30)
    asked_late = threading.Thread(target=ask)
    asked_late.start()
    asked_late.join(30)
    assert [getattr(error, "code", error) for error in found] == [LOST, LOST]
