"""A worker process on another machine, with the face of `worker.child.Child`."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from sensorium.cluster.placement import Ask


class RemoteProcess:
    """One worker of a node. Signals go over the node's control connection.

    Attributes:
        exited: done when it has ended, or when nobody can know any more; the result says how.
        leaving: done when its machine is about to leave: it should finish what it has, and end.
        node: the worker_id of its machine.
        ask: what of the machine it was promised.
        gpus: which of the machine's GPUs it was given; empty: none in particular.
    """

    def __init__(self, node: str, pid: int, ask: Ask, gpus: list[int], send: Callable[[signal.Signals], None]) -> None:
        self.node = node
        self.pid = pid
        self.ask = ask
        self.gpus = gpus
        self.started = time.time()
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send = send

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self.exited.done():
            self._send(number)

    async def wait(self, timeout_s: float) -> str | None:
        """Return how it ended, or None if it still runs after `timeout_s`."""
        await asyncio.wait([self.exited], timeout=timeout_s)
        return self.exited.result() if self.exited.done() else None
