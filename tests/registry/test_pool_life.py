"""Models that come and go while the pool runs: registered, unloaded, evicted, scaled, removed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from sensorium.errors import (
    AlreadyRegistered,
    InvalidRequest,
    ModelLoading,
    ModelNotFound,
    ModelUnavailable,
    NoRoom,
    WorkerDied,
)
from sensorium.registry.circuit import FIRST_PAUSE_S
from sensorium.registry.fit import PROCESS_BYTES
from sensorium.registry.pool import Pool
from sensorium.registry.spec import ModelSpec
from sensorium.settings import GIB, MIB, EngineSettings
from sensorium.types import Adapter
from sensorium.worker.launcher import Launcher
from tests.workers import FAKE, answer, process_gone, request, until

THREE = {"host": 3 * PROCESS_BYTES + PROCESS_BYTES // 2}  # memory for three fake models, which take a process each


def spec(alias: str, model: str = "fake", **options: Any) -> ModelSpec:
    return ModelSpec(alias, EngineSettings(model, name=alias), **options)


@asynccontextmanager
async def registered(*specs: ModelSpec, **options: Any) -> AsyncGenerator[Pool, None]:
    models = Pool({}, launcher=Launcher(FAKE, preload=()), **options)
    try:
        for each in specs:
            models.add(each)
        yield models
    finally:
        await models.close(0.0)


async def ask(models: Pool, name: str, prompt: str = "hello", near: str = "") -> str:
    async with models.lease(name, near=near) as handle:
        return await answer(handle, request(f"{name}-{prompt}-{os.urandom(4).hex()}", prompt))


def states(models: Pool) -> Mapping[str, str]:
    return {name: models.status(name).state for name in models.names()}


def test_a_model_goes_through_its_states() -> None:
    async def run() -> None:
        async with registered(spec("a", "slow:0.3")) as models:
            seen: list[tuple[str, str]] = []

            async def watch() -> None:
                async for change in models.changes():
                    seen.append((change.alias, change.status.state if change.status else "removed"))

            watching = asyncio.create_task(watch())
            await asyncio.sleep(0)
            assert states(models) == {"a": "registered"}
            assert await ask(models, "a") == "hello"
            status = models.status("a")
            assert (status.state, status.num_loads, len(status.replicas)) == ("ready", 1, 1)
            assert status.load_s is not None
            assert status.load_s > 0.3
            assert sum(status.phases.values()) == pytest.approx(status.load_s, abs=0.05)
            await models.unload("a")
            assert states(models) == {"a": "unloaded"}
            await models.remove("a")
            assert models.names() == []
            await asyncio.sleep(0.05)
            watching.cancel()
            order = list(dict.fromkeys(state for _, state in seen))
            assert order == ["loading", "ready", "draining", "unloaded", "removed"]

    uvloop.run(run())


def test_the_same_spec_again_is_fine_and_another_is_not() -> None:
    async def run() -> None:
        async with registered(spec("a")) as models:
            models.add(spec("a"))
            with pytest.raises(AlreadyRegistered, match="Another model is called 'a'"):
                models.add(spec("a", "other"))
            with pytest.raises(ModelNotFound):
                models.add(spec("b", "/adapter", lora_of="missing"))

    uvloop.run(run())


def test_an_adapter_is_a_model_over_another() -> None:
    async def run() -> None:
        async with registered(spec("base"), spec("tuned", "/adapter", lora_of="base")) as models:
            assert await ask(models, "tuned") == "hello"
            status = models.status("tuned")
            assert (status.lora_of, status.model) == ("base", "/adapter")
            with pytest.raises(InvalidRequest, match="'tuned' are adapters over 'base'"):
                await models.remove("base")
            await models.remove("tuned")
            await models.remove("base")

    uvloop.run(run())


def test_who_does_not_wait_is_told_when_to_come_back() -> None:
    async def run() -> None:
        async with registered(spec("a", "slow:0.5")) as models:
            with pytest.raises(ModelLoading, match="'a' is loading") as caught:
                async with models.lease("a", wait=False):
                    pass
            assert caught.value.retry_after_s is not None
            await until(lambda: states(models)["a"] == "ready")
            async with models.lease("a", wait=False):
                pass
            assert models.status("a").num_loads == 1

    uvloop.run(run())


def test_idle_models_go_and_used_ones_stay() -> None:
    async def run() -> None:
        async with registered(spec("a", idle_ttl_s=0.5), spec("b"), spec("c", pinned=True), idle_ttl_s=60) as models:
            for name in "abc":
                await ask(models, name)
            async with models.lease("a"):
                await asyncio.sleep(2.5)
                assert states(models)["a"] == "ready"
            await until(lambda: states(models)["a"] == "unloaded")
            assert states(models) == {"a": "unloaded", "b": "ready", "c": "ready"}
            assert await ask(models, "a") == "hello"

    uvloop.run(run())


def test_the_longest_unused_makes_room() -> None:
    async def run() -> None:
        names = ("a", "b", "c", "d")
        async with registered(*(spec(name) for name in names), budgets=THREE) as models:
            for name in (*names[:3], "a"):
                await ask(models, name)
            await ask(models, "d")
            assert states(models) == {"a": "ready", "b": "unloaded", "c": "ready", "d": "ready"}

    uvloop.run(run())


def test_twenty_models_take_turns_in_memory_for_three() -> None:
    async def run() -> None:
        names = [f"m{number}" for number in range(20)]
        async with registered(*(spec(name) for name in names), budgets=THREE) as models:
            most = 0

            async def count() -> None:
                nonlocal most
                while True:
                    await asyncio.sleep(0.01)
                    replicas = [replica for name in names for replica in models.status(name).replicas]
                    most = max(most, sum(replica.pid is not None for replica in replicas))

            counting = asyncio.create_task(count())
            answers = [await ask(models, name, name) for name in names * 2]
            answers += await asyncio.gather(*(ask(models, name, name) for name in names))
            counting.cancel()
            assert answers == names * 3
            assert most == 3

    uvloop.run(run())


def test_what_can_never_fit_is_refused_at_once_with_numbers() -> None:
    async def run() -> None:
        budgets = {"host": PROCESS_BYTES * 3 // 2}
        async with registered(spec("pinned", pinned=True), spec("b"), budgets=budgets) as models:
            await ask(models, "pinned")
            with pytest.raises(NoRoom, match=r"needs 0\.20 GiB of host memory; models may take 0\.29 GiB.*that stay"):
                await ask(models, "b")
            assert states(models)["b"] == "failed"
            assert await ask(models, "pinned") == "hello"

    uvloop.run(run())


def test_a_load_waits_for_a_busy_model_to_become_idle() -> None:
    async def run() -> None:
        async with registered(spec("a"), spec("b"), budgets={"host": PROCESS_BYTES * 3 // 2}) as models:
            async with models.lease("a"):
                waiting = asyncio.create_task(ask(models, "b"))
                await until(lambda: models.status("b").phase == "waiting for memory")
                await asyncio.sleep(1.0)
                assert not waiting.done()
            assert await waiting == "hello"
            assert states(models)["a"] == "unloaded"

    uvloop.run(run())


def test_unloading_lets_requests_end_and_those_that_come_meanwhile_get_another_worker() -> None:
    async def run() -> None:
        async with registered(spec("a"), drain_s=20.0) as models:
            running = asyncio.create_task(ask(models, "a", "x" * 60))
            await until(lambda: models.status("a").in_flight)
            unloading = asyncio.create_task(models.unload("a"))
            await until(lambda: states(models)["a"] == "draining")
            assert await ask(models, "a", "new") == "new"
            assert await running == "x" * 60
            await unloading
            assert models.status("a").num_loads == 2

    uvloop.run(run())


def test_removing_ends_what_does_not_end_by_itself() -> None:
    async def run() -> None:
        async with registered(spec("a"), drain_s=0.3) as models:
            async with models.lease("a") as handle:
                pid = handle.child.pid
                events = handle.generate(request("endless", "slow"))
                await anext(events)
                removing = asyncio.create_task(models.remove("a"))
                await asyncio.sleep(0)
                with pytest.raises(ModelNotFound):
                    await ask(models, "a")
                with pytest.raises(Exception, match="being put away"):
                    async for _ in events:
                        pass
            await removing
            assert process_gone(pid)

    uvloop.run(run())


def test_two_loads_and_a_removal_at_once() -> None:
    async def run() -> None:
        async with registered(drain_s=5.0) as models:
            for turn in range(12):
                models.add(spec("a", "slow:0.05"))
                loads = [asyncio.create_task(models.load("a")) for _ in range(2)]
                await asyncio.sleep(0.012 * turn)
                await models.remove("a")
                results = await asyncio.gather(*loads, return_exceptions=True)
                assert all(result is None or isinstance(result, ModelNotFound) for result in results)
                assert models.room.used() == {"host": 0}
            models.add(spec("a"))
            assert await ask(models, "a") == "hello"

    uvloop.run(run())


def test_replicas_share_requests_and_one_that_dies_is_replaced() -> None:
    async def run() -> None:
        async with registered(spec("a", min_replicas=2, max_replicas=2)) as models:
            await until(lambda: [replica.state for replica in models.status("a").replicas] == ["ready"] * 2)
            pids = {replica.pid for replica in models.status("a").replicas}
            async with models.lease("a") as one, models.lease("a") as other:
                assert {one.child.pid, other.child.pid} == pids
            async with models.lease("a", near="talk") as one, models.lease("a", near="talk") as other:
                assert one is other
            async with models.lease("a") as handle:
                events = handle.generate(request("r", "slow"))
                await anext(events)
                os.kill(handle.child.pid, signal.SIGKILL)
                with pytest.raises(WorkerDied):
                    async for _ in events:
                        pass
                assert await ask(models, "a") == "hello"
            await until(lambda: [replica.state for replica in models.status("a").replicas] == ["ready"] * 2)
            assert {replica.pid for replica in models.status("a").replicas} != pids

    uvloop.run(run())


def test_a_queue_calls_for_another_worker_and_none_is_left_when_nobody_asks() -> None:
    async def run() -> None:
        async with registered(spec("a", max_replicas=2, idle_ttl_s=1.5)) as models:
            asked = [asyncio.create_task(ask(models, "a", "x" * 800)) for _ in range(16)]
            await until(lambda: [replica.state for replica in models.status("a").replicas] == ["ready"] * 2, 20.0)
            later = [asyncio.create_task(ask(models, "a", "y" * 400)) for _ in range(4)]
            # The new one has less to do.
            await until(lambda: max(models.status("a").replicas, key=lambda replica: replica.id).in_flight == 4, 20.0)
            await asyncio.gather(*asked, *later)
            await until(lambda: states(models)["a"] == "unloaded", 20.0)

    uvloop.run(run())


def test_a_failed_load_gives_its_memory_back() -> None:
    async def run() -> None:
        async with registered(spec("a", "crash"), spec("b"), budgets={"host": PROCESS_BYTES * 3 // 2}) as models:
            for _ in range(2):
                with pytest.raises(ModelUnavailable):
                    await ask(models, "a")
            assert models.room.used() == {"host": 0}
            assert await ask(models, "b") == "hello"

    uvloop.run(run())


def test_measured_memory_replaces_what_was_expected() -> None:
    async def run() -> None:
        async with registered(spec("a", "small"), budgets={"host": GIB}) as models:
            await ask(models, "a")
            await until(lambda: models.status("a").host_bytes == 20 * MIB)
            await until(lambda: models.room.used() == {"host": 20 * MIB})

    uvloop.run(run())


def test_a_removal_ends_though_a_worker_dies_of_it() -> None:
    async def run() -> None:
        async with registered(spec("a")) as models:
            await models.load_adapter(Adapter("sql", "/adapters/sql"), "a", False)
            async with models.lease("a") as handle:
                os.kill(handle.child.pid, signal.SIGSTOP)  # it does not answer any more
                removing = asyncio.create_task(models.remove("a"))
                await asyncio.sleep(0.1)
                handle.kill("stopped answering")
            await removing
            assert models.names() == []
            models.add(spec("a"))
            assert await ask(models, "a") == "hello"

    uvloop.run(run())


def test_adapters_that_go_while_their_model_is_removed() -> None:
    async def run() -> None:
        async with registered(spec("a")) as models:
            for name in ("sql", "law"):
                await models.load_adapter(Adapter(name, f"/adapters/{name}"), "a", False)
            removing = asyncio.create_task(models.remove("a"))
            await asyncio.sleep(0)  # it tells the worker of the first one
            with contextlib.suppress(ModelNotFound):
                await models.unload_adapter("law")
            await removing
            assert models.names() == []

    uvloop.run(run())


def test_an_adapter_is_not_loaded_over_a_model_that_went() -> None:
    async def run() -> None:
        async with registered(spec("a")) as models:
            async with models.lease("a") as handle:
                os.kill(handle.child.pid, signal.SIGSTOP)
            loading = asyncio.create_task(models.load_adapter(Adapter("sql", "/adapters/sql"), "a", False))
            await until(lambda: models.status("a").in_flight == 1)
            removing = asyncio.create_task(models.remove("a"))
            await until(lambda: models.names() == [])
            os.kill(handle.child.pid, signal.SIGCONT)
            with pytest.raises(ModelNotFound):
                await loading
            await removing
            assert models.names() == []

    uvloop.run(run())


def test_a_registered_adapter_is_removed_and_not_unloaded() -> None:
    async def run() -> None:
        async with registered(spec("a"), spec("tuned", "/adapter", lora_of="a")) as models:
            with pytest.raises(InvalidRequest, match="'tuned' is registered; DELETE"):
                await models.unload_adapter("tuned")
            assert models.names() == ["a", "tuned"]
            await models.remove("tuned")
            await models.remove("a")

    uvloop.run(run())


def test_having_had_no_room_keeps_nobody_from_loading_once_there_is_some() -> None:
    async def run() -> None:
        budgets = {"host": PROCESS_BYTES * 3 // 2}
        async with registered(spec("pinned", pinned=True), spec("b"), budgets=budgets) as models:
            await ask(models, "pinned")
            for _ in range(4):
                with pytest.raises(NoRoom):
                    await ask(models, "b")
            assert (states(models)["b"], models.status("b").retry_in_s) == ("failed", 0)
            await models.unload("pinned")
            assert await ask(models, "b") == "hello"

    uvloop.run(run())


def test_a_model_that_served_and_was_unloaded_is_forgiven_earlier_failures() -> None:
    async def run() -> None:
        async with registered(spec("a")) as models:
            circuit = models._names.slot("a")._crew.circuit
            for _ in range(3):
                circuit.failed(-1000.0, "long ago")
            await ask(models, "a")
            await models.unload("a")
            for _ in range(3):
                circuit.failed(0.0, "again")
            assert circuit.wait_s(0.0) == FIRST_PAUSE_S

    uvloop.run(run())


def test_a_worker_that_is_ended_while_it_falls_asleep_is_no_sign_that_it_cannot() -> None:
    async def run() -> None:
        async with registered(spec("a")) as models:
            await ask(models, "a")
            slot = models._names.slot("a")
            slot.lifecycle.sleeps = True
            slot.lifecycle.idle_ttl_s = 0.0
            async with models.lease("a") as handle:
                os.kill(handle.child.pid, signal.SIGSTOP)  # it takes long to fall asleep
            await until(lambda: models.status("a").state == "asleep")
            handle.kill("is killed by the test")
            await until(lambda: not models.status("a").replicas)
            assert slot.lifecycle.sleeps

    uvloop.run(run())


def test_an_error_nobody_expected_while_it_wakes_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with registered(spec("a")) as models:
            await ask(models, "a")
            slot = models._names.slot("a")
            replica = next(iter(slot.lifecycle.replicas.values()))
            replica.state = "asleep"

            async def broken(*args: Any) -> None:
                monkeypatch.undo()
                raise OSError("a disk that fails")

            monkeypatch.setattr("sensorium.registry.loading.appraise", broken)
            async with asyncio.timeout(20):
                assert await ask(models, "a") == "hello"

    uvloop.run(run())


def test_an_error_in_one_model_does_not_end_the_watch_over_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr("sensorium.registry.watchdog._WATCH_S", 0.05)
        async with registered(spec("broken"), spec("a", idle_ttl_s=0.1)) as models:
            slot = models._names.slot("broken")
            monkeypatch.setattr(slot, "tick", lambda now: 1 / 0)
            await ask(models, "a")
            await until(lambda: states(models)["a"] == "unloaded", 10)

    uvloop.run(run())
