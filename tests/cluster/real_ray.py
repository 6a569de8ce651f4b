"""A real Ray cluster of two raylets on this machine, one of which is killed in mid-answer: `make test-ray`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import pytest
import ray
import uvloop
from ray.cluster_utils import Cluster

from sensorium.cluster.ray import RaySpawner
from sensorium.errors import ConfigurationError, ModelUnavailable, NoRoom, WorkerDied
from sensorium.settings import EngineSettings, Needs
from sensorium.worker.handle import WorkerHandle
from tests.cluster.agents import running
from tests.cluster.test_node import begin
from tests.workers import FAKE, answer, request, until

ONE_CPU = Needs(num_cpus=1)
SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A node with one processor and two GPUs, so it says, and one with one processor."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 2, "memory": 4 << 30, **SMALL})
    made.add_node(num_cpus=1, num_gpus=0, memory=1 << 30, **SMALL)
    yield made
    ray.shutdown()
    made.shutdown()


@asynccontextmanager
async def spawner(cluster: Cluster, **options: Any) -> AsyncGenerator[RaySpawner, None]:
    made = RaySpawner(cluster.address, entry=FAKE, preload=(), **options)
    try:
        yield made
    finally:
        made.close()


async def load(source: RaySpawner, model: str = "fake", needs: Needs = ONE_CPU, **settings: Any) -> WorkerHandle:
    return await WorkerHandle.load(source, EngineSettings(model, **settings), needs=needs)


def test_replicas_are_spread_and_the_third_finds_no_room(cluster: Cluster) -> None:
    async def run() -> None:
        async with spawner(cluster, room_s=3.0) as source:
            first = await load(source, device="cpu")
            second = await load(source, device="cpu")
            assert first.child.node != second.child.node
            assert await answer(first, request("a", "one")) == "one"
            assert await answer(second, request("a", "two")) == "two"
            with pytest.raises(
                NoRoom, match=r"'other', which takes 1 CPU\. .* in all 0 CPU, .* are free of 2 CPU, 2 GPU"
            ):
                await load(source, "other", device="cpu")
            rows = {row["worker_id"][:8]: row for row in await source.rows()}
            held = [row for row in rows.values() if row["instances"]]
            assert len(held) == 2
            assert all(row["status"] == "active" for row in held)
            await first.close()
            third = await load(source, "other", device="cpu")
            assert third.child.node == first.child.node
            assert await answer(third, request("a", "three")) == "three"

    uvloop.run(run())


def test_gpus_are_whose_ray_says(cluster: Cluster) -> None:
    async def run() -> None:
        async with spawner(cluster, room_s=5.0) as source:  # Ray takes some seconds to see what was given back
            none = Needs()
            pair = await load(source, needs=none, tensor_parallel_size=2)
            assert gpus_of(pair.child.pid) == {"0", "1"}
            with pytest.raises(NoRoom, match=r"takes 0\.5 GPU"):
                await load(source, "half", none, gpu_memory_utilization=0.5)
            await pair.close()
            halves = [await load(source, "half", none, gpu_memory_utilization=0.5) for _ in range(2)]
            assert all(len(gpus_of(half.child.pid)) == 1 for half in halves)
            with pytest.raises(NoRoom, match=r"for the model 'big', which takes 8\.0 GiB memory"):
                await load(source, "big", Needs(num_gpus=0, memory_bytes=8 << 30))
            assert (await load(source, "big", Needs(num_gpus=0, memory_bytes=3 << 30))).alive

    uvloop.run(run())


def test_loading_that_fails_gives_the_resources_back(cluster: Cluster) -> None:
    async def run() -> None:
        async with spawner(cluster, room_s=3.0) as source:
            for _ in range(3):  # more often than there is room
                with pytest.raises(ConfigurationError, match="There is no folder 'missing'"):
                    await load(source, "missing", device="cpu")
            with pytest.raises(ModelUnavailable, match="There is no /no/such/model on that machine"):
                await load(source, "/no/such/model", device="cpu")
            loading = asyncio.create_task(load(source, "slow:60", device="cpu"))
            await asyncio.sleep(0.3)
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            both = [await load(source, device="cpu") for _ in range(2)]
            assert [await answer(one, request("a", "here")) for one in both] == ["here", "here"]

    uvloop.run(run())


GATEWAY = """
import asyncio, json, sys
from tests.cluster.real_ray import ONE_CPU, FAKE, RaySpawner, load

async def main():
    source = RaySpawner(sys.argv[1], entry=FAKE, preload=())
    handle = await load(source, device="cpu")
    print(json.dumps(handle.child.pid), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_actors_end_with_a_killed_gateway(cluster: Cluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GATEWAY, cluster.address], stdout=subprocess.PIPE, text=True
    ) as gateway:
        assert gateway.stdout is not None
        worker = json.loads(gateway.stdout.readline())
        pids = [worker, *(parent.pid for parent in psutil.Process(worker).parents()[:2])]
        gateway.kill()
        gateway.wait()
    deadline = time.monotonic() + 20
    while running(pids[:2]):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    async def run() -> None:
        async with spawner(cluster, room_s=20.0) as source:
            both = [await load(source, device="cpu") for _ in range(2)]
            assert all(one.alive for one in both)

    uvloop.run(run())


def test_a_node_killed_in_the_middle(cluster: Cluster) -> None:
    """The last test: one node is gone after it."""

    async def run() -> None:
        async with spawner(cluster, room_s=10.0) as source:
            (node,) = cluster.worker_nodes
            both = [await load(source, device="cpu"), await load(source, device="cpu")]
            other, doomed = sorted(both, key=lambda one: node.node_id.startswith(one.child.node.rpartition("/")[2]))
            stream = await begin(doomed)
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            victims = [raylet.pid, *(child.pid for child in raylet.children(recursive=True))]
            assert doomed.child.pid in victims
            start = time.monotonic()
            for pid in victims:  # as when the machine is switched off
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerDied):
                await stream
            assert time.monotonic() - start < 15
            await until(lambda: not running(victims), 20.0)
            assert await answer(other, request("a", "alive")) == "alive"
            await other.close()
            again = await load(source, device="cpu")
            assert again.child.node == other.child.node
            assert await answer(again, request("a", "again")) == "again"

    uvloop.run(run())


def gpus_of(pid: int) -> set[str]:
    """What the worker's environment says: it is not the worker's own, but that of the process it was forked from."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        variables = dict(line.partition(b"=")[::2] for line in file.read().split(b"\0"))
    return set(filter(None, variables.get(b"CUDA_VISIBLE_DEVICES", b"").decode().split(",")))
