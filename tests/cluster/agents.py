"""Node agents as real processes on loopback addresses, whose workers run the fake model; and wires that can be cut."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil

from sensorium.cluster.node import Node
from sensorium.cluster.placement import Ask
from sensorium.cluster.token import key_of
from sensorium.settings import EngineSettings, Needs
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.spawner import Process
from tests.workers import FAKE

TOKEN = "a token of the tests' cluster"
KEY = key_of(TOKEN)


class AgentProcess:
    """A node agent; its pid is that of the machine, so to say."""

    def __init__(self, process: subprocess.Popen[str], worker_id: str, address: tuple[str, int]) -> None:
        self.process = process
        self.worker_id = worker_id
        self.address = address

    @property
    def url(self) -> str:
        return f"tcp://{self.address[0]}:{self.address[1]}"

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def descendants(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]


@contextmanager
def agent(
    host: str = "127.0.0.2", worker_id: str | None = None, port: int = 0, token: str = TOKEN
) -> Iterator[AgentProcess]:
    worker_id = worker_id or f"at-{host}"
    process = subprocess.Popen(
        [sys.executable, "-m", "sensorium.cluster.agent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        start = {"worker_id": worker_id, "token": token, "host": host, "port": port, "entry": FAKE, "preload": []}
        process.stdin.write(json.dumps(start) + "\n")
        process.stdin.flush()
        port = json.loads(process.stdout.readline())["port"]
        yield AgentProcess(process, worker_id, (host, port))
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@asynccontextmanager
async def connected(to: AgentProcess, silent_after_s: float = 5.0) -> AsyncGenerator[Node, None]:
    node = await Node.connect(to.worker_id, to.address, KEY, silent_after_s)
    try:
        yield node
    finally:
        node.close()


class OneNode:
    """A spawner that knows one machine."""

    def __init__(self, node: Node) -> None:
        self.node = node

    elsewhere = True

    def start(self) -> None:
        pass

    async def spawn(self, settings: EngineSettings, needs: Needs) -> tuple[object, Process]:
        return await self.node.spawn(settings.model, Ask(settings.name or settings.model), [])

    def close(self) -> None:
        self.node.close()


async def load(node: Node, model: str = "fake") -> WorkerHandle:
    return await WorkerHandle.load(OneNode(node), EngineSettings(model))  # type: ignore[arg-type]


class Wire:
    """A TCP proxy in front of an agent. Frozen, it takes what is sent and it goes nowhere, as on a dead line."""

    def __init__(self, to: tuple[str, int]) -> None:
        self._to = to
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ("127.0.0.1", 0)

    def freeze(self) -> None:
        self._flowing.clear()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._to)
        for one in (self._copy(reader, back), self._copy(there, writer)):
            task = asyncio.create_task(one)
            self._tasks.add(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            await self._flowing.wait()
        except OSError:
            pass
        finally:
            writer.close()


def running(pids: list[int]) -> list[int]:
    """Those of the processes that have not ended."""
    found = []
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat.rpartition(")")[2].split()[0] not in "ZX":
            found.append(pid)
    return found
