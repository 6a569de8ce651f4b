"""One machine of the cluster as the gateway sees it: its control connection, and the workers that run there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import time
from typing import Any

from sensorium.cluster import handshake, messages, tcp
from sensorium.cluster.handshake import Hello, Refused
from sensorium.cluster.link import SILENT_AFTER_S, Link
from sensorium.cluster.machine import Machine
from sensorium.cluster.placement import Ask, Place
from sensorium.cluster.remote_process import RemoteProcess
from sensorium.errors import ModelUnavailable, from_info

_WELCOME_S = 10.0
_SPAWN_S = 150.0  # a zygote on a cold disk takes its time

log = logging.getLogger(__name__)


class Node:
    """A connected node agent. Made by `connect`.

    Attributes:
        machine: what it has, as of its last sign of life.
        leaving: it takes no more workers, and waits for those it has to end.
        lost: done when it is gone, with all its workers; the result completes the sentence "The machine ...".
    """

    machine: Machine
    lost: asyncio.Future[str]

    def __init__(self, worker_id: str, address: tuple[str, int], key: bytes, silent_after_s: float) -> None:
        self.id = worker_id
        self.address = address
        self.heard = time.time()
        self.leaving = False
        self._key = key
        self._silent_after_s = silent_after_s
        self._session = ""
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._processes: dict[int, RemoteProcess] = {}
        self._welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link: Link

    @classmethod
    async def connect(
        cls, worker_id: str, address: tuple[str, int], key: bytes, silent_after_s: float = SILENT_AFTER_S
    ) -> Node:
        """Dial a node agent and see that it knows the token.

        Raises:
            ModelUnavailable: it cannot be reached, or is not of this cluster.
        """
        node = cls(worker_id, address, key, silent_after_s)
        sock = await node._dial(Hello(worker_id, "control"))
        node._link = Link(messages.from_node, node._on_message, messages.Alive, silent_after_s)
        node.lost = node._link.lost
        node.lost.add_done_callback(lambda lost: node._on_lost(lost.result()))
        try:
            await node._link.open(sock)
            await asyncio.wait_for(asyncio.shield(node._welcomed), _WELCOME_S)
        except (OSError, TimeoutError):
            node.close()
            raise ModelUnavailable(f"The worker {worker_id!r} at {tcp.url_of(*address)} says nothing.") from None
        except BaseException:
            node.close()
            raise
        return node

    @property
    def processes(self) -> list[RemoteProcess]:
        """The workers that run there."""
        return list(self._processes.values())

    def place(self, name: str) -> Place:
        """What there is for one more worker of the model `name`."""
        gpus = [0.0] * len(self.machine.gpus)
        for process in self.processes:
            for index in process.gpus:
                if index < len(gpus):
                    gpus[index] += min(1.0, process.ask.num_gpus)
        return Place(
            self.id,
            self.machine,
            sum(process.ask.num_cpus for process in self.processes),
            sum(process.ask.host_bytes for process in self.processes),
            tuple(gpus),
            sum(process.ask.name == name for process in self.processes),
        )

    async def spawn(self, model: str, ask: Ask, gpus: list[int]) -> tuple[socket.socket, RemoteProcess]:
        """Start a worker there; return our end of its socket, and the process.

        Raises:
            ModelUnavailable: it could not be started; code `no_such_folder`: `model` is not there.
        """
        number = next(self._numbers)
        # Counted from now on, so that two who ask at once are not both promised the last place.
        process = RemoteProcess(self.id, 0, ask, gpus, lambda code: self._signal(number, code))
        self._processes[number] = process
        sock: socket.socket | None = None
        try:
            sock = await self._dial(Hello(self.id, "worker", self._session, number))
            answer = self._answers[number] = asyncio.get_running_loop().create_future()
            if self.lost.done():
                raise self._gone()
            self._link.send(messages.Spawn(number, model, ask.num_gpus, gpus))
            process.pid = await asyncio.wait_for(answer, _SPAWN_S)
        except BaseException as error:
            if sock is not None:
                sock.close()  # ends a worker that starts after all
            self._processes.pop(number, None)
            if isinstance(error, TimeoutError):
                raise ModelUnavailable(
                    f"No worker could be started on {self.id!r}: it did not answer within {_SPAWN_S:g} s."
                ) from None
            raise
        finally:
            self._answers.pop(number, None)
        return sock, process

    def close(self, why: str = "was let go") -> None:
        """End the connection, and with it every worker there."""
        self._link.close(why)

    async def _dial(self, hello: Hello) -> socket.socket:
        sock: socket.socket | None = None
        where = f"The worker {self.id!r} at {tcp.url_of(*self.address)}"
        try:
            sock = await tcp.dial(*self.address)
            await handshake.greet(sock, self._key, hello)
            return sock
        except Refused as error:
            reason = f"{where} is refused: {error.message}."
        except TimeoutError:
            reason = f"{where} cannot be reached: no answer in time. Is the port open, and the address right?"
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else "The connection was closed"
            reason = f"{where} cannot be reached: {why}."
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        if sock is not None:
            sock.close()
        raise ModelUnavailable(reason, code="worker_unreachable")

    def _on_message(self, message: Any) -> None:
        self.heard = time.time()
        match message:
            case messages.Welcome(session, machine):
                self._session, self.machine = session, machine
                if not self._welcomed.done():
                    self._welcomed.set_result(None)
            case messages.Alive(machine, leaving) if machine is not None:
                self.machine = machine
                if leaving:
                    self._leave()
            case messages.Spawned(number, pid) if number in self._answers:
                self._answer(number).set_result(pid)
            case messages.NotSpawned(number, error) if number in self._answers:
                self._answer(number).set_exception(from_info(error))
            case messages.Exited(number, how) if number in self._processes:
                self._end(number, how)

    def _leave(self) -> None:
        if not self.leaving:
            self.leaving = True
            log.info("the worker %r is leaving; %d models are there", self.id, len(self._processes))
        for process in self.processes:
            if not process.leaving.done():
                process.leaving.set_result(None)

    def _answer(self, number: int) -> asyncio.Future[int]:
        answer = self._answers[number]
        return answer if not answer.done() else asyncio.get_running_loop().create_future()

    def _on_lost(self, how: str) -> None:
        log.warning("the worker %r %s; %d models were there", self.id, how, len(self._processes))
        if not self._welcomed.done():
            self._welcomed.set_exception(ConnectionResetError())
            self._welcomed.exception()
        for number in list(self._answers):
            self._answer(number).set_exception(self._gone())
        for number in list(self._processes):
            self._end(number, f"was lost with its machine {self.id!r}, which {how},")

    def _end(self, number: int, how: str) -> None:
        process = self._processes.pop(number)
        if not process.exited.done():
            process.exited.set_result(how)

    def _signal(self, number: int, code: signal.Signals) -> None:
        with contextlib.suppress(AttributeError):
            self._link.send(messages.Signal(number, int(code)))

    def _gone(self) -> ModelUnavailable:
        return ModelUnavailable(f"The worker {self.id!r} {self.lost.result()}.", code="worker_lost")
