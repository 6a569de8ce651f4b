from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import uvloop

from sensorium.errors import ConfigurationError, ModelNotFound, ModelUnavailable, WorkerDied
from sensorium.registry.pool import Pool
from sensorium.settings import EngineSettings
from sensorium.worker.launcher import Launcher
from tests.workers import FAKE, answer, pool, process_gone, request, until


async def ask(models: Pool, name: str, prompt: str = "hello", request_id: str = "a") -> str:
    async with models.lease(name) as handle:
        return await answer(handle, request(request_id, prompt))


def test_many_ask_and_it_is_loaded_once(tmp_path: Path) -> None:
    log = tmp_path / "loads"

    async def run() -> None:
        async with pool({"counted": f"count:{log}"}) as models:
            assert models.info("counted") is None
            asked = [ask(models, "counted", f"p{number}", f"p{number}") for number in range(20)]
            assert await asyncio.gather(*asked) == [f"p{number}" for number in range(20)]
            info = models.info("counted")
            assert info is not None
            assert info.name == "counted"
            assert len(log.read_text().split()) == 1

    uvloop.run(run())


def test_names_with_equal_settings_share_a_worker() -> None:
    async def run() -> None:
        settings = EngineSettings("fake", name="one")
        models = Pool({"one": settings, "two": settings}, launcher=Launcher(FAKE, preload=()))
        async with models.lease("one") as first, models.lease("two") as second:
            assert first is second
        assert models.names() == ["one", "two"]
        assert models.default() == "one"
        await models.close(0)

    uvloop.run(run())


def test_a_model_on_demand_waits_for_a_request_and_is_nobodys_default() -> None:
    async def run() -> None:
        async with pool({"eyes": "fake", "ears": "fake"}, keep_loaded=True, on_demand=["ears"]) as models:
            assert (models.names(), models.default()) == (["eyes", "ears"], "eyes")
            await models.start(preload=True)
            assert models.ready()[0]
            assert models.info("eyes") is not None
            assert models.info("ears") is None
            assert await ask(models, "ears") == "hello"
            assert models.info("ears") is not None
            assert models.default() == "eyes"

    uvloop.run(run())


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    async def run() -> None:
        async with pool({"tiny-vl": "fake", "qwen3-vl-2b": "fake"}) as models:
            with pytest.raises(ModelNotFound, match=r"'qwen3-vl-4b' does not exist. Nearest: 'qwen3-vl-2b'"):
                await ask(models, "qwen3-vl-4b")

    uvloop.run(run())


def test_killed_in_mid_stream_the_next_request_gets_a_new_worker_and_others_notice_nothing() -> None:
    async def run() -> None:
        async with pool({"victim": "fake", "other": "fake2"}) as models:
            undisturbed = asyncio.create_task(ask(models, "other", "x" * 100))
            async with models.lease("victim") as handle:
                events = handle.generate(request("a", "slow"))
                await anext(events)
                os.kill(handle.child.pid, signal.SIGKILL)
                with pytest.raises(WorkerDied, match="SIGKILL"):
                    async for _ in events:
                        pass
                assert await ask(models, "victim", "again") == "again"
            assert await undisturbed == "x" * 100
            assert models.counters()["victim"]["worker_deaths"] == 1
            assert models.counters()["other"]["worker_deaths"] == 0

    uvloop.run(run())


def test_a_stopped_worker_is_found_and_replaced() -> None:
    async def run() -> None:
        async with pool({"fake": "fake"}, silent_after_s=2.5) as models:
            await models.start(preload=True)
            async with models.lease("fake") as handle:
                events = handle.generate(request("a", "slow"))
                await anext(events)
                os.kill(handle.child.pid, signal.SIGSTOP)
                async with asyncio.timeout(30):
                    with pytest.raises(WorkerDied, match="stopped answering"):
                        async for _ in events:
                            pass
            assert await ask(models, "fake", "back") == "back"

    uvloop.run(run())


def test_an_engine_that_does_not_turn_is_found() -> None:
    async def run() -> None:
        async with pool({"fake": "fake"}, stalled_after_s=2.5) as models:
            with pytest.raises(WorkerDied, match="in one step for"):
                async with asyncio.timeout(30):
                    await ask(models, "fake", "stuck")

    uvloop.run(run())


def test_a_failed_load_tells_the_reason_and_after_three_pauses() -> None:
    async def run() -> None:
        async with pool({"gone": "missing", "good": "fake"}) as models:
            for _ in range(3):
                with pytest.raises(ModelUnavailable, match="no folder 'missing'") as caught:
                    await ask(models, "gone")
                assert caught.value.retry_after_s is None
            with pytest.raises(
                ModelUnavailable, match=r"is not started for .* s more\. Last reason.*no folder"
            ) as last:
                await ask(models, "gone")
            assert last.value.retry_after_s in (9, 10)
            assert await ask(models, "good") == "hello"

    uvloop.run(run())


def test_at_start_a_wrong_checkpoint_is_a_configuration_error() -> None:
    async def run() -> None:
        async with pool({"gone": "missing"}) as models:
            with pytest.raises(ConfigurationError, match=r"^There is no folder 'missing'"):
                await models.start(preload=True)

    uvloop.run(run())


def test_a_cancelled_caller_does_not_cancel_the_load_of_others() -> None:
    async def run() -> None:
        async with pool({"fake": "slow:0.5"}) as models:
            first = asyncio.create_task(ask(models, "fake", "first", "first"))
            second = asyncio.create_task(ask(models, "fake", "second", "second"))
            await asyncio.sleep(0.2)
            first.cancel()
            assert await second == "second"
            assert models.counters()["fake"]["worker_loads"] == 1

    uvloop.run(run())


def test_ready_tells_how_far_it_is() -> None:
    async def run() -> None:
        async with pool({"fake": "slow:0.5"}) as models:
            assert models.ready() == (True, "models are loaded when they are asked for")
            starting = asyncio.create_task(models.start(preload=True))
            await until(lambda: "weights 50%" in models.ready()[1])
            assert models.ready() == (False, "'fake' is loading (weights 50%)")
            await starting
            assert models.ready() == (True, "'fake' is loaded")
            await models.close(0)
            assert not models.ready()[0]

    uvloop.run(run())


def test_a_model_that_is_kept_loaded_comes_back_by_itself() -> None:
    async def run() -> None:
        async with pool({"fake": "fake"}) as models:
            await models.start(preload=True)
            async with models.lease("fake") as handle:
                pid = handle.child.pid
            os.kill(pid, signal.SIGKILL)
            # Not by `ready`: on an idle machine the new worker is there before anybody looks.
            await until(lambda: models.counters()["fake"]["worker_loads"] == 2)
            await until(lambda: models.ready()[0])
            async with models.lease("fake") as handle:
                assert handle.child.pid != pid

    uvloop.run(run())


def test_closing_lets_running_requests_end() -> None:
    async def run() -> None:
        launcher = Launcher(FAKE, preload=())
        models = Pool({"fake": EngineSettings("fake")}, launcher=launcher)
        running = asyncio.create_task(ask(models, "fake", "x" * 50))
        await until(lambda: models.counters()["fake"]["in_flight"])
        async with models.lease("fake") as handle:
            pid = handle.child.pid
        zygote = launcher.pid
        assert zygote is not None
        closing = asyncio.create_task(models.close(grace_s=10.0))
        await asyncio.sleep(0)
        with pytest.raises(ModelUnavailable, match="shutting down"):
            await ask(models, "fake")
        assert await running == "x" * 50
        await closing
        assert process_gone(pid)
        assert process_gone(zygote)

    uvloop.run(run())


def test_closing_waits_no_longer_than_the_grace() -> None:
    async def run() -> None:
        async with pool({"fake": "fake"}) as models:
            running = asyncio.create_task(ask(models, "fake", "slow"))
            await until(lambda: models.counters().get("fake", {}).get("in_flight"))
            async with asyncio.timeout(10):
                await models.close(grace_s=0.2)
                with pytest.raises(ModelUnavailable):
                    await running

    uvloop.run(run())


def test_a_model_that_is_kept_loaded_can_be_unloaded_by_hand() -> None:
    async def run() -> None:
        async with pool({"fake": "fake"}) as models:
            await models.start(preload=True)
            await models.unload("fake")
            await asyncio.sleep(1.5)  # the watchdog has looked
            assert models.status("fake").state == "unloaded"
            assert models.ready()[0]
            assert await ask(models, "fake") == "hello"
            assert models.status("fake").state == "ready"

    uvloop.run(run())
