"""A gateway and node agents in processes of their own, on other loopback addresses."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
import uvloop

from sensorium.cluster.node import Node
from sensorium.cluster.placement import Ask
from sensorium.errors import ConfigurationError, ModelUnavailable, WorkerDied
from sensorium.worker.handle import WorkerHandle
from tests.cluster.agents import KEY, TOKEN, AgentProcess, Wire, agent, connected, load, running
from tests.workers import answer, process_gone, request, text, until


async def begin(handle: WorkerHandle) -> asyncio.Task[str]:
    """Start an answer without an end, and return when it is under way."""
    flowing = asyncio.Event()

    async def read() -> str:
        events = []
        async for event in handle.generate(request("endless", "slow")):
            events.append(event)
            flowing.set()
        return text(events)

    task = asyncio.create_task(read())
    await flowing.wait()
    return task


def test_a_model_on_another_address_answers_and_ends_in_order() -> None:
    async def run(there: AgentProcess) -> None:
        async with connected(there) as node:
            assert node.machine.num_cpus >= 1
            handle = await load(node)
            assert handle.child.node == "at-127.0.0.2"
            assert handle.child.pid in there.descendants()
            assert await answer(handle, request("a", "hello")) == "hello"
            data = await answer(handle, request("b", "x" * 50))
            assert data == "x" * 50
            await handle.close()
            assert handle.child.exited.result() == "exited with status 0"
            assert node.processes == []

    with agent() as there:
        uvloop.run(run(there))


def test_loading_that_fails_there_says_why() -> None:
    async def run(there: AgentProcess) -> None:
        async with connected(there) as node:
            with pytest.raises(ConfigurationError, match="There is no folder 'missing'"):
                await load(node, "missing")
            with pytest.raises(WorkerDied, match="exited with status 9 while it loaded"):
                await load(node, "crash")
            with pytest.raises(ModelUnavailable, match="There is no /no/such/model on that machine") as caught:
                await load(node, "/no/such/model")
            assert caught.value.code == "no_such_folder"
            await until(lambda: not node.processes)

    with agent() as there:
        uvloop.run(run(there))


def test_a_killed_worker_ends_its_requests_and_no_others() -> None:
    async def run(there: AgentProcess) -> None:
        async with connected(there) as node:
            victim, other = await asyncio.gather(load(node), load(node))
            stream = await begin(victim)
            os.kill(victim.child.pid, signal.SIGKILL)
            with pytest.raises(WorkerDied, match="was killed by signal 9"):
                await stream
            assert await answer(other, request("a", "alive")) == "alive"
            assert await answer(await load(node), request("a", "new")) == "new"

    with agent() as there:
        uvloop.run(run(there))


def test_a_stopped_worker_can_be_killed_from_afar() -> None:
    async def run(there: AgentProcess) -> None:
        async with connected(there) as node:
            handle = await load(node)
            stream = await begin(handle)
            os.kill(handle.child.pid, signal.SIGSTOP)
            handle.kill("stopped answering")
            with pytest.raises(WorkerDied, match="stopped answering"):
                await stream
            await until(lambda: process_gone(handle.child.pid))

    with agent() as there:
        uvloop.run(run(there))


def test_a_killed_agent_takes_its_workers_with_it() -> None:
    async def run(there: AgentProcess) -> None:
        async with connected(there) as node:
            handle = await load(node)
            pids = there.descendants()
            stream = await begin(handle)
            there.signal(signal.SIGKILL)
            start = time.monotonic()
            with pytest.raises(WorkerDied):
                await stream
            assert time.monotonic() - start < 10
            assert node.lost.done()
            await until(lambda: not running(pids))
            with pytest.raises(ModelUnavailable):
                await load(node)

    with agent() as there:
        uvloop.run(run(there))


def test_a_stopped_agent_is_lost_within_seconds_and_its_workers_end() -> None:
    async def run(there: AgentProcess) -> None:
        async with connected(there, silent_after_s=2.0) as node:
            handle = await load(node)
            stream = await begin(handle)
            there.signal(signal.SIGSTOP)
            start = time.monotonic()
            with pytest.raises(WorkerDied, match=r"lost with its machine 'at-127.0.0.2', which was not heard of for"):
                await stream
            assert 1.5 < time.monotonic() - start < 8
            await until(lambda: process_gone(handle.child.pid))  # its socket has ended
            there.signal(signal.SIGCONT)
            async with connected(there) as again:
                assert await answer(await load(again), request("a", "again")) == "again"

    with agent() as there:
        uvloop.run(run(there))


def test_a_dead_line_is_noticed_by_both_ends() -> None:
    async def run(there: AgentProcess) -> None:
        async with Wire(there.address) as wire:
            node = await Node.connect(there.worker_id, wire.address, KEY, silent_after_s=2.0)
            handle = await load(node)
            stream = await begin(handle)
            wire.freeze()
            with pytest.raises(WorkerDied, match="was lost with its machine"):
                await stream
            # The agent hears nothing either, not even that the gateway has given up.
            await until(lambda: process_gone(handle.child.pid), timeout_s=15.0)

    with agent() as there:
        uvloop.run(run(there))


GATEWAY = """
import asyncio, json, sys
from tests.cluster.agents import AgentProcess, connected, load
from tests.workers import request

async def main():
    there = AgentProcess(None, sys.argv[1], (sys.argv[2], int(sys.argv[3])))
    async with connected(there) as node:
        handle = await load(node)
        print(handle.child.pid, flush=True)
        async for _ in handle.generate(request("a", "slow")):
            pass

asyncio.run(main())
"""


def test_workers_end_with_a_killed_gateway_and_the_agent_serves_the_next() -> None:
    with agent() as there:
        command = [sys.executable, "-c", GATEWAY, there.worker_id, *map(str, there.address)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
            assert gateway.stdout is not None
            pid = int(gateway.stdout.readline())
            assert running([pid])
            gateway.kill()
            gateway.wait()
        deadline = time.monotonic() + 15
        while running([pid]):
            assert time.monotonic() < deadline
            time.sleep(0.01)

        async def run() -> None:
            async with connected(there) as node:
                assert await answer(await load(node), request("a", "next")) == "next"

        uvloop.run(run())


def test_a_gateway_that_hangs_up_while_a_worker_starts_leaves_none_behind() -> None:
    async def run(there: AgentProcess) -> None:
        async with connected(there) as node:
            loads = [asyncio.create_task(load(node, "slow:5")) for _ in range(4)]
            await asyncio.sleep(0.05)
            for one in loads:
                one.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            await until(lambda: len(there.descendants()) == 1)  # the zygote
            assert node.place("slow:5").replicas == 0
            sock, process = await node.spawn("fake", Ask("fake"), [])
            sock.close()
            assert await process.wait(5) == "exited with status 0"

    with agent() as there:
        uvloop.run(run(there))


def test_two_gateways_share_an_agent() -> None:
    async def run(there: AgentProcess) -> None:
        async with connected(there) as one, connected(there) as other:
            mine, theirs = await asyncio.gather(load(one), load(other))
            one.close()
            await until(lambda: process_gone(mine.child.pid))
            assert await answer(theirs, request("a", "still here")) == "still here"

    with agent() as there:
        uvloop.run(run(there))


def test_the_agent_ends_with_the_process_that_holds_its_input() -> None:
    with agent() as there:
        pids = there.descendants()
        assert there.process.stdin is not None
        there.process.stdin.close()
        there.process.wait(15)
        deadline = time.monotonic() + 15
        while running(pids):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_agents_process_shows_no_token() -> None:
    with agent() as there:
        for name in ("cmdline", "environ"):
            with open(f"/proc/{there.process.pid}/{name}", "rb") as file:
                assert TOKEN.encode() not in file.read()
