"""One control connection as the agent sees it, and the workers that were started over it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Any

from sensorium.cluster import messages
from sensorium.cluster.link import Link
from sensorium.cluster.machine import Machine
from sensorium.errors import ErrorInfo, ModelUnavailable, SensoriumError
from sensorium.worker.child import Child
from sensorium.worker.launcher import Launcher

_MOST_PARKED = 16
_PARKED_S = 30.0
_ARRIVAL_S = 5.0

log = logging.getLogger(__name__)


class Session:
    """The workers of one gateway on this machine. They end with its control connection."""

    def __init__(self, session_id: str, launcher: Launcher, machine: Callable[[], Machine]) -> None:
        self.id = session_id
        self.link = Link(messages.to_node, self._on_message, self._beat)
        self._launcher = launcher
        self._machine = machine
        self._places: dict[int, asyncio.Future[socket.socket]] = {}  # connections whose worker is not there yet
        self._children: dict[int, tuple[str, Child]] = {}
        self._spawning: set[asyncio.Task[None]] = set()
        self._leaving = self._ended = False

    @property
    def busy(self) -> bool:
        """Whether workers run, or are being started."""
        return bool(self._children or self._spawning)

    async def open(self, sock: socket.socket) -> None:
        """Take over the control connection."""
        await self.link.open(sock)
        self.link.send(messages.Welcome(self.id, self._machine()))

    def park(self, number: int, sock: socket.socket) -> bool:
        """Keep a worker's connection until its Spawn comes, or the other way round; False: it is not wanted."""
        place = self._place(number)
        if place is None or place.done():
            return False
        place.set_result(sock)
        return True

    def workers(self) -> Iterable[tuple[int, str, int]]:
        """Yield number, model and process id."""
        for number, (model, child) in self._children.items():
            yield number, model, child.pid

    def leave(self) -> None:
        """Start no more workers, and ask the gateway to let those that run finish and then end them."""
        self._leaving = True
        self.link.send(self._beat())

    def end(self) -> None:
        """End every worker at once."""
        self._ended = True
        for task in self._spawning:
            task.cancel()
        for number in list(self._places):
            self._leave(number)
        for _, child in self._children.values():
            child.kill()

    def _place(self, number: int) -> asyncio.Future[socket.socket] | None:
        if number not in self._places:
            if self._ended or number in self._children or len(self._places) >= _MOST_PARKED:
                return None
            loop = asyncio.get_running_loop()
            self._places[number] = loop.create_future()
            loop.call_later(_PARKED_S, self._leave, number)
        return self._places[number]

    def _leave(self, number: int) -> None:
        """Close a connection that no worker took."""
        place = self._places.pop(number, None)
        if place is not None and not place.cancel() and not place.cancelled():
            place.result().close()

    def _beat(self) -> messages.Alive:
        return messages.Alive(self._machine(), self._leaving)

    def _on_message(self, message: Any) -> None:
        match message:
            case messages.Spawn():
                task = asyncio.get_running_loop().create_task(self._spawn(message))
                self._spawning.add(task)
                task.add_done_callback(self._spawning.discard)
            case messages.Signal(number, code) if number in self._children:
                with contextlib.suppress(ValueError):
                    self._children[number][1].signal(signal.Signals(code))

    async def _spawn(self, wanted: messages.Spawn) -> None:
        if self._leaving:
            self._leave(wanted.number)
            self._refuse(wanted, ModelUnavailable("That machine is about to leave the cluster.").info())
            return
        place = self._place(wanted.number)
        try:
            if place is None:
                raise TimeoutError
            sock = await asyncio.wait_for(asyncio.shield(place), _ARRIVAL_S)
            del self._places[wanted.number]
        except (TimeoutError, asyncio.CancelledError):
            self._refuse(wanted, ModelUnavailable("The connection for the worker did not arrive.").info())
            return
        with sock:
            if os.path.isabs(wanted.model) and not os.path.exists(wanted.model):
                error = ModelUnavailable(f"There is no {wanted.model} on that machine.", code=messages.NO_FOLDER)
                self._refuse(wanted, error.info())
                return
            try:
                child = await self._launcher.fork(sock, visible(wanted.gpus))
            except SensoriumError as error:
                self._refuse(wanted, error.info())
                return
            except (OSError, IndexError) as error:  # no descriptors are left; a GPU that is not there any more
                log.error("worker %d could not be started: %s", wanted.number, error)
                refused = ModelUnavailable(f"No worker process could be started there: {error}.")
                self._refuse(wanted, refused.info())
                return
        if self._ended:
            child.kill()
            return
        self._children[wanted.number] = (wanted.model, child)
        self.link.send(messages.Spawned(wanted.number, child.pid))
        log.info("worker %d (process %d) is started for %s", wanted.number, child.pid, wanted.model)
        child.exited.add_done_callback(lambda exited: self._exited(wanted.number, exited.result()))

    def _exited(self, number: int, how: str) -> None:
        del self._children[number]
        self.link.send(messages.Exited(number, how))

    def _refuse(self, wanted: messages.Spawn, error: ErrorInfo) -> None:
        self.link.send(messages.NotSpawned(wanted.number, error))


def visible(gpus: list[int]) -> dict[str, str]:
    """Return what makes a worker see only these GPUs, of those that this process sees."""
    if not gpus:
        return {}
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = ours.split(",") if ours else None
    chosen = [names[index] if names is not None else str(index) for index in gpus]
    return {"CUDA_VISIBLE_DEVICES": ",".join(chosen)}
