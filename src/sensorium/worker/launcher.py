"""The gateway's side of the zygote: start it early, ask it for workers, start another if it dies."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sensorium.cores import wait_briefly
from sensorium.errors import ModelUnavailable
from sensorium.settings import EngineSettings, Needs
from sensorium.worker import prctl
from sensorium.worker.child import Child

CHOSEN = "sensorium.worker.engines:ChosenModel"
PRELOAD = ("torch", "tokenizers", "safetensors.torch", "jinja2")

_ANSWER_S = 120.0  # importing torch from a cold disk is slow
_NONE: Mapping[str, str] = MappingProxyType({})


class ZygoteEnded(ModelUnavailable):
    """The zygote ended while it was asked for a worker (503)."""


class Launcher:
    """Owns the zygote.

    Args:
        entry: "module:class" of the model a worker runs; the class has `load` (see worker/process.py).
        preload: modules to import before the first fork.
    """

    elsewhere = False

    def __init__(self, entry: str = CHOSEN, preload: Sequence[str] = PRELOAD) -> None:
        self._entry = entry
        self._preload = tuple(preload)
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._turn = asyncio.Lock()
        self._ids = itertools.count()

    @property
    def pid(self) -> int | None:
        """The zygote's process id while it runs."""
        return self._zygote.pid if self._zygote and self._zygote.poll() is None else None

    def start(self) -> None:
        """Start the zygote if none runs; returns at once, its imports go on by themselves.

        Call it from the main thread: the kernel ends the zygote with the thread that started it.
        """
        if self.pid is not None:
            return
        self._drop()
        prctl.adopt_orphans()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", __name__.replace("launcher", "zygote")]
        with theirs:
            self._zygote = subprocess.Popen(
                [*command, str(theirs.fileno()), self._entry, *self._preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # nothing of a worker may get into the output of a command
                env=_environment(),
                start_new_session=True,
            )
        ours.setblocking(False)
        self._control = ours

    async def spawn(
        self, settings: EngineSettings | None = None, needs: Needs | None = None
    ) -> tuple[socket.socket, Child]:
        """Fork a worker; return our end of its socket, and the process. What it will load makes no difference here.

        Raises:
            ModelUnavailable: no worker could be started.
        """
        for last_try in (False, True):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            try:
                with theirs:
                    return ours, await self.fork(theirs)
            except ZygoteEnded:
                ours.close()
                if last_try:
                    raise
            except BaseException:
                ours.close()
                raise
        raise AssertionError("unreachable")

    async def fork(self, sock: socket.socket, variables: Mapping[str, str] = _NONE) -> Child:
        """Fork a worker that serves `sock`, whose copy here is left to the caller.

        Args:
            sock: the worker's end of a stream socket, of this machine or from another.
            variables: of the worker's environment, beside those of the zygote.

        Raises:
            ModelUnavailable: no worker could be started. After ZygoteEnded, `sock` may not be used again.
        """
        # A caller may go while the zygote forks: the worker is there all the same, and somebody must see it end.
        forking = asyncio.get_running_loop().create_task(self._fork(sock.dup(), variables))
        try:
            return await asyncio.shield(forking)
        except asyncio.CancelledError:
            forking.add_done_callback(_unwanted)
            raise

    def close(self) -> None:
        """End the zygote. Workers are not touched."""
        self._drop()

    async def _fork(self, sock: socket.socket, variables: Mapping[str, str]) -> Child:
        with sock:
            async with self._turn:
                self.start()
                try:
                    return Child(await asyncio.wait_for(self._ask(sock, variables), _ANSWER_S))
                except TimeoutError:
                    self._drop()
                    raise ModelUnavailable(
                        f"No worker process could be started: the zygote did not answer within {_ANSWER_S:g} s.",
                    ) from None
                except (OSError, EOFError) as error:
                    self._drop()
                    raise ZygoteEnded(
                        "No worker process could be started: the zygote ended. Its own output on standard error says "
                        "why.",
                    ) from error

    async def _ask(self, theirs: socket.socket, variables: Mapping[str, str]) -> int:
        assert self._control is not None
        loop = asyncio.get_running_loop()
        request_id = str(next(self._ids))
        line = json.dumps({"id": request_id, "variables": dict(variables)}).encode() + b"\n"
        socket.send_fds(self._control, [line], [theirs.fileno()])
        pending = b""
        while True:
            data = await loop.sock_recv(self._control, 1 << 12)
            if not data:
                raise EOFError
            *lines, pending = (pending + data).split(b"\n")
            for answer in map(json.loads, lines):
                if answer["id"] != request_id:
                    continue  # of one that was given up
                if "error" in answer:
                    raise ModelUnavailable(
                        "No worker process could be started: the system has no room for another process."
                    )
                return int(answer["pid"])

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._zygote is not None:
            self._zygote.kill()
            self._zygote.wait()
            self._zygote = None


def _unwanted(forking: asyncio.Task[Child]) -> None:
    if not forking.cancelled() and forking.exception() is None:
        forking.result().kill()


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    wait_briefly(environment)
    # numpy's OpenBLAS would start threads on import, before the fork.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    # One text at a time: its threads would only be in the way of the engine's.
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    return environment
