"""Where workers go when machines have joined: this one, and two agents on other loopback addresses."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sensorium.cluster.node import Node
from sensorium.cluster.nodes import HERE, Nodes
from sensorium.cluster.spawner import ClusterSpawner
from sensorium.errors import ModelUnavailable, NoRoom, WorkerDied
from sensorium.registry.pool import Pool
from sensorium.registry.spec import ModelSpec
from sensorium.settings import EngineSettings, Needs
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.launcher import Launcher
from tests.cluster.agents import KEY, AgentProcess, agent
from tests.cluster.test_node import begin
from tests.workers import FAKE, answer, request, until


@pytest.fixture
def agents() -> Iterator[list[AgentProcess]]:
    with agent("127.0.0.11", "one") as one, agent("127.0.0.12", "two") as two:
        yield [one, two]


@asynccontextmanager
async def spawner(agents: list[AgentProcess]) -> AsyncGenerator[ClusterSpawner, None]:
    made = ClusterSpawner(Launcher(FAKE, preload=()), Nodes(KEY, silent_after_s=2.0))
    made.start()
    try:
        for there in agents:
            await made.nodes.register(there.worker_id, there.url)
        yield made
    finally:
        made.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def coroutine() -> None:
        await test()

    uvloop.run(coroutine())


async def load(source: ClusterSpawner, model: str = "fake", **needs: object) -> WorkerHandle:
    return await WorkerHandle.load(source, EngineSettings(model), needs=Needs(**needs))  # type: ignore[arg-type]


def test_replicas_go_to_different_machines(agents: list[AgentProcess]) -> None:
    async def test() -> None:
        async with spawner(agents) as source:
            assert source.elsewhere
            handles = [await load(source) for _ in range(3)]
            assert {handle.child.node for handle in handles} == {"", "one", "two"}
            for handle in handles:
                assert await answer(handle, request("a", "hello")) == "hello"
            rows = {row["worker_id"]: row for row in await source.rows()}
            assert [len(row["instances"]) for row in rows.values()] == [1, 1]
            await asyncio.gather(*(handle.close() for handle in handles))
            assert not any(row["instances"] for row in await source.rows())

    run(test)


def test_a_machine_that_is_named_is_used_or_missed(agents: list[AgentProcess]) -> None:
    async def test() -> None:
        async with spawner(agents) as source:
            for name, node in (("two", "two"), (HERE, ""), ("one", "one"), ("one", "one")):
                assert (await load(source, worker_id=name)).child.node == node
            with pytest.raises(NoRoom, match="is to run on the worker 'three', which is not here now"):
                await load(source, worker_id="three")
            source.nodes.unregister("two")
            with pytest.raises(NoRoom, match="Here are: 'local', 'one'"):
                await load(source, worker_id="two")

    run(test)


def test_what_does_not_fit_says_the_numbers(agents: list[AgentProcess]) -> None:
    async def test() -> None:
        async with spawner(agents) as source:
            with pytest.raises(NoRoom, match=r"takes 1048576\.0 GiB of memory\. local: .* one: .* two: .* GiB free"):
                await load(source, memory_bytes=1 << 50)

    run(test)


def test_machines_without_the_folder_are_passed_over(agents: list[AgentProcess], tmp_path: Path) -> None:
    async def test() -> None:
        async with spawner(agents) as source:
            with pytest.raises(ModelUnavailable, match=r"could be started.*There is no /no/such on that mach"):
                await load(source, "/no/such", worker_id="one")
            os.chdir(tmp_path)
            Path("fake").mkdir()
            with pytest.raises(ModelUnavailable, match="fake is a folder of the gateway's"):
                await load(source, "fake", worker_id="one")
            handles = [await load(source, "fake") for _ in range(2)]
            assert {handle.child.node for handle in handles} == {""}

    before = Path.cwd()
    try:
        run(test)
    finally:
        os.chdir(before)


def test_a_pool_keeps_its_replicas_when_a_machine_is_lost(agents: list[AgentProcess]) -> None:
    async def test() -> None:
        async with spawner(agents) as source:
            models = Pool({}, launcher=source)
            settings = EngineSettings("fake", name="m")
            models.add(ModelSpec("m", settings, min_replicas=2, max_replicas=2))
            await models.load("m")
            await until(lambda: len(nodes_of(models)) == 2)
            async with models.lease("m") as handle:
                stream = await begin(handle)
                lose(handle, agents)
                with pytest.raises(WorkerDied):
                    await stream
            for number in range(5):  # the other one answers, whatever happened to the first
                async with models.lease("m") as handle:
                    assert await answer(handle, request(f"b{number}", "hello")) == "hello"
            await until(lambda: len(nodes_of(models)) == 2, 20.0)  # nobody asked for it
            await models.close(0)

    run(test)


def test_idle_models_leave_full_machines_for_others(agents: list[AgentProcess]) -> None:
    async def test() -> None:
        async with spawner(agents) as source:
            cpus = source.nodes.active[0].machine.num_cpus
            models = Pool({}, launcher=source)
            for number in range(5):
                settings = EngineSettings("fake", name=f"m{number}")
                pinned = number == 0
                models.add(ModelSpec(f"m{number}", settings, needs=Needs(num_cpus=cpus), pinned=pinned))
            settings = EngineSettings("fake", name="big")
            models.add(ModelSpec("big", settings, needs=Needs(num_cpus=cpus + 1)))
            for number in (0, 1, 2, 3, 1, 4, 0):
                async with models.lease(f"m{number}") as handle:
                    assert await answer(handle, request("a", "hello")) == "hello"
            loads = [models.status(f"m{number}").num_loads for number in range(5)]
            assert loads == [1, 2, 1, 1, 1]
            ready = {name for name in models.names() if models.status(name).state == "ready"}
            assert ready == {"m0", "m1", "m4"}  # as many as there are machines
            with pytest.raises(NoRoom, match=f"takes {cpus + 1:g} CPUs") as caught:
                await models.load("big")
            assert caught.value.code == "too_large"
            assert {name for name in models.names() if models.status(name).state == "ready"} == ready
            await models.close(0)

    run(test)


def nodes_of(models: Pool) -> list[str]:
    return [replica.node for replica in models.status("m").replicas if replica.state == "ready"]


def lose(handle: WorkerHandle, agents: list[AgentProcess]) -> None:
    """Take the machine away on which a worker runs; of this one, only the worker."""
    machine = next((there for there in agents if there.worker_id == handle.child.node), None)
    if machine is None:
        os.kill(handle.child.pid, signal.SIGKILL)
    else:
        machine.signal(signal.SIGSTOP)


@pytest.mark.parametrize("where", ["one", HERE])
def test_two_who_ask_at_once_are_not_both_promised_the_last_place(agents: list[AgentProcess], where: str) -> None:
    async def test() -> None:
        async with spawner(agents) as source:
            cpus = source.nodes.active[0].machine.num_cpus
            await load(source, worker_id="two")  # GPUs are looked for now
            both = [load(source, worker_id=where, num_cpus=cpus) for _ in range(2)]
            handles = await asyncio.gather(*both, return_exceptions=True)
            assert sorted(isinstance(handle, NoRoom) for handle in handles) == [False, True], handles

    run(test)


def test_a_place_is_free_again_when_nothing_could_be_started_there(agents: list[AgentProcess]) -> None:
    async def test() -> None:
        async with spawner(agents) as source:
            node = next(node for node in source.nodes.active if node.id == "one")
            address, node.address = node.address, ("127.0.0.99", 9)
            with pytest.raises(ModelUnavailable, match="cannot be reached: Connection refused"):
                await load(source, worker_id="one")
            node.address = address
            assert node.processes == []

    run(test)


def test_where_this_machine_cannot_start_a_worker_the_next_best_does(
    agents: list[AgentProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> object:
        raise ModelUnavailable("No worker process could be started: the zygote ended.")

    async def test() -> None:
        async with spawner(agents) as source:
            monkeypatch.setattr(Launcher, "spawn", fails)
            handles = [await load(source) for _ in range(3)]
            assert {handle.child.node for handle in handles} == {"one", "two"}
            with pytest.raises(ModelUnavailable, match=r"for the model 'fake'\. .* the zygote ended"):
                await load(source, worker_id=HERE)

    run(test)


def test_who_joins_while_it_is_let_go_is_connected_once(agents: list[AgentProcess]) -> None:
    """A worker that is started anew while the one before says goodbye."""

    async def test() -> None:
        async with spawner(agents) as source:
            one = agents[0]
            made = []
            connect = Node.connect

            async def slowly(*arguments: Any) -> Node:
                made.append(await connect(*arguments))
                await asyncio.sleep(0.1)
                return made[-1]

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Node, "connect", slowly)
                first = asyncio.create_task(source.nodes.register(one.worker_id, one.url))
                await until(lambda: made)
                source.nodes.unregister(one.worker_id)
                await asyncio.gather(first, source.nodes.register(one.worker_id, one.url))
            assert len([node for node in made if not node.lost.done()]) == 1

    run(test)
