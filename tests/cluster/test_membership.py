"""How a node agent keeps itself registered, at a gateway that answers what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from sensorium.cluster.join import Joining
from sensorium.cluster.machine import Machine
from tests.cluster.agents import KEY

Answer = Callable[[str], Coroutine[Any, Any, int]]


@asynccontextmanager
async def gateway(answer: Answer) -> AsyncGenerator[tuple[str, list[str]], None]:
    """A gateway whose status for "METHOD path" is what `answer` says, and what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line = " ".join(head.decode().split(" ")[:2])
                length = next(int(one[15:]) for one in head.lower().split(b"\r\n") if one.startswith(b"content-length"))
                await reader.readexactly(length)
                asked.append(line)
                status = await answer(line)
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


def an_agent() -> Any:
    """An agent whose gateway has a control connection."""
    machine = Machine(1.0, 1, 1)
    return SimpleNamespace(
        worker_id="x", connected=True, changed=asyncio.Event(), machine=lambda: machine, instances=dict
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_heartbeat_that_a_proxy_loses_does_not_register_again() -> None:
    """Registering again makes the gateway end every worker of the connection before."""

    async def test() -> None:
        beats = iter((502, 504, 429, 200))

        async def answer(line: str) -> int:
            return next(beats, 200) if "heartbeat" in line else 200

        async with gateway(answer) as (url, asked):
            task = asyncio.create_task(Joining(an_agent(), "tcp://127.0.0.1:1", url, KEY, heartbeat_s=0.02).run())
            await until(lambda: asked.count("POST /workers/x/heartbeat") >= 5)
            task.cancel()
            await asyncio.wait([task])
            assert asked.count("POST /workers/register") == 1

    asyncio.run(test())


def test_a_gateway_that_forgot_the_worker_is_told_again() -> None:
    async def test() -> None:
        async def answer(line: str) -> int:
            return 404 if "heartbeat" in line else 200

        async with gateway(answer) as (url, asked):
            task = asyncio.create_task(Joining(an_agent(), "tcp://127.0.0.1:1", url, KEY, heartbeat_s=0.02).run())
            await until(lambda: asked.count("POST /workers/register") >= 3)
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(test())


@pytest.mark.parametrize("silent", [True, False])
def test_leaving_is_no_failure_when_the_gateway_does_not_hear_it(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.cluster.join._GOODBYE_S", 0.1)

    async def test() -> None:
        closing = asyncio.Event()

        async def answer(line: str) -> int:
            if line.startswith("DELETE"):
                if not silent:
                    raise ConnectionError
                await closing.wait()
            return 200

        async with gateway(answer) as (url, asked):
            joining = Joining(an_agent(), "tcp://127.0.0.1:1", url, KEY, heartbeat_s=0.02)
            task = asyncio.create_task(joining.run())
            await until(lambda: joining.joined)
            task.cancel()
            await asyncio.wait([task])
            assert "DELETE /workers/x/unregister" in asked
            closing.set()
            assert task.cancelled()  # nothing that would become the command's status

    asyncio.run(test())
