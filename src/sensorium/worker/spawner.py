"""Where worker processes come from: the zygote of this machine (`launcher.Launcher`), or other machines."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Protocol

from sensorium.settings import EngineSettings, Needs


class Process(Protocol):
    """A worker process, here or on another machine.

    Attributes:
        exited: done when it has ended; the result says how: "was killed by signal 9 (SIGKILL)".
        node: the machine it runs on; "" is this one.
        leaving: done when that machine is about to leave: the process should finish what it has, and end.
    """

    @property
    def pid(self) -> int: ...

    @property
    def node(self) -> str: ...

    @property
    def leaving(self) -> asyncio.Future[None] | None: ...

    exited: asyncio.Future[str]

    def kill(self) -> None:
        """End it at once, unless it has ended."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""

    async def wait(self, timeout_s: float) -> str | None:
        """Return how it ended, or None if it still runs after `timeout_s`."""


class Spawner(Protocol):
    """Starts worker processes that run `worker.process.main` on the other end of a socket.

    Attributes:
        elsewhere: workers run on machines that count their memory themselves.
    """

    @property
    def elsewhere(self) -> bool: ...

    def start(self) -> None:
        """Make ready what makes `spawn` quick; returns at once."""

    async def spawn(self, settings: EngineSettings, needs: Needs) -> tuple[socket.socket, Process]:
        """Start a worker; return our end of its stream socket (AF_UNIX or TCP), and the process.

        Raises:
            NoRoom: no machine has what it needs now.
            ModelUnavailable: no worker could be started.
        """

    def close(self) -> None:
        """Let go of what `start` made ready. Workers are not touched."""
