"""The agent's side of a control connection, where the machine it runs on is in trouble."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from sensorium.cluster import machine, messages
from sensorium.cluster.agent import Agent
from sensorium.cluster.session import Session
from tests.cluster.agents import KEY

A_MACHINE = machine.Machine(1.0, 1, 1)


class Launcher:
    """One that cannot fork: no descriptors are left."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def fork(self, sock: socket.socket, variables: dict[str, str]) -> Any:
        raise self.error


@pytest.mark.parametrize("gpus", [[], [3]])
def test_a_worker_that_cannot_be_started_is_refused_at_once_whatever_went_wrong(
    gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unanswered, the gateway would wait for two and a half minutes."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    async def test() -> None:
        said: list[Any] = []
        session = Session("s", Launcher(OSError(errno.EMFILE, "Too many open files")), lambda: A_MACHINE)  # type: ignore[arg-type]
        monkeypatch.setattr(session.link, "send", said.append)
        ours, theirs = socket.socketpair()
        with ours:
            assert session.park(1, theirs)
            session._on_message(messages.Spawn(1, gpus=gpus))
            async with asyncio.timeout(5):
                while session.busy:
                    await asyncio.sleep(0.01)
        assert theirs.fileno() == -1
        (answer,) = said
        assert isinstance(answer, messages.NotSpawned)
        assert answer.error.message.startswith("No worker process could be started there: ")

    asyncio.run(test())


def test_a_machine_that_cannot_look_at_its_memory_just_now_says_what_it_saw_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception here would end the signs of life, and after five seconds all workers of the machine."""

    async def test() -> None:
        agent = Agent("x", KEY, None)  # type: ignore[arg-type]
        seen = agent.machine()

        def look(*_: object) -> machine.Machine:
            raise OSError(errno.EMFILE, "Too many open files", "/proc/meminfo")

        monkeypatch.setattr(machine, "look", look)
        assert agent.machine() == seen

    asyncio.run(test())
