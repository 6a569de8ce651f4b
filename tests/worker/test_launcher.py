from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sensorium.errors import ModelUnavailable
from sensorium.settings import EngineSettings
from sensorium.worker import prctl
from sensorium.worker.child import Child
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.launcher import Launcher
from tests.workers import answer, launcher, process_gone, request

GATEWAY = """
import asyncio, json, os
from sensorium.settings import EngineSettings
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.launcher import Launcher

async def main():
    launcher = Launcher("fake_native:FakeModel", preload=())
    launcher.start()
    handles = [await WorkerHandle.load(launcher, EngineSettings("fake")) for _ in range(2)]
    print(json.dumps([launcher.pid, *(handle.child.pid for handle in handles)]), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_everything_ends_with_a_killed_gateway(stopped: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", GATEWAY], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        pids = json.loads(gateway.stdout.readline())
        if stopped:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        gateway.kill()
        gateway.wait()
    deadline = time.monotonic() + 15
    while not all(map(process_gone, pids)):
        assert time.monotonic() < deadline, f"still running: {[pid for pid in pids if not process_gone(pid)]}"
        time.sleep(0.01)


def test_a_dead_zygote_takes_no_worker_with_it_and_is_replaced() -> None:
    async def run() -> None:
        async with launcher() as started:
            first = await WorkerHandle.load(started, EngineSettings("fake"))
            zygote = started.pid
            assert zygote is not None
            os.kill(zygote, signal.SIGKILL)
            assert await answer(first, request("a", "alive")) == "alive"
            second = await WorkerHandle.load(started, EngineSettings("fake"))
            assert await answer(second, request("a", "new")) == "new"
            assert started.pid not in (None, zygote)
            await asyncio.gather(first.close(), second.close())
            assert first.child.exited.result() == "exited with status 0"

    asyncio.run(run())


def test_a_zygote_that_cannot_start_is_an_error() -> None:
    async def run() -> None:
        started = Launcher("no_such_module:Model", preload=())
        with pytest.raises(ModelUnavailable, match="the zygote ended"):
            await started.spawn()
        started.close()

    asyncio.run(run())


def test_forking_is_fast() -> None:
    async def run() -> None:
        async with launcher() as started:
            await (await WorkerHandle.load(started, EngineSettings("fake"))).close()
            times = []
            for _ in range(5):
                start = time.monotonic()
                handle = await WorkerHandle.load(started, EngineSettings("fake"))
                times.append(time.monotonic() - start)
                await handle.close()
            assert min(times) < 0.1

    asyncio.run(run())


def test_nothing_is_left_open_after_many_workers() -> None:
    async def run() -> None:
        async with launcher() as started:
            await (await WorkerHandle.load(started, EngineSettings("fake"))).close()
            assert started.pid is not None
            ours, theirs = Path("/proc/self/fd"), Path(f"/proc/{started.pid}/fd")
            before = len(list(ours.iterdir())), len(list(theirs.iterdir()))
            for _ in range(20):
                handle = await WorkerHandle.load(started, EngineSettings("fake"))
                assert await answer(handle, request("a", "ok")) == "ok"
                await handle.close()
            assert (len(list(ours.iterdir())), len(list(theirs.iterdir()))) == before

    asyncio.run(run())


def test_workers_have_a_name_and_a_group_of_their_own() -> None:
    async def run() -> None:
        async with launcher() as started:
            handle = await WorkerHandle.load(started, EngineSettings("fake"))
            pid = handle.child.pid
            assert Path(f"/proc/{pid}/comm").read_text().strip() == "sensorium-worke"
            assert os.getpgid(pid) == pid
            assert started.pid is not None
            assert Path(f"/proc/{started.pid}/comm").read_text().strip() == "sensorium-zygot"
            await handle.close()

    asyncio.run(run())


def test_a_worker_that_nobody_waits_for_any_more_ends_and_is_seen_to() -> None:
    async def run() -> None:
        others = set(psutil.Process().children())  # of other tests: a database, for one
        async with launcher() as started:
            kept = await WorkerHandle.load(started, EngineSettings("fake"))
            for turn in range(20):
                loading = asyncio.create_task(WorkerHandle.load(started, EngineSettings("slow:0.05")))
                await asyncio.sleep(0.002 * turn)
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
            ours = psutil.Process()
            async with asyncio.timeout(10):
                while {child.pid for child in set(ours.children()) - others} - {started.pid, kept.child.pid}:
                    await asyncio.sleep(0.02)
            await kept.close()

    asyncio.run(run())


def test_a_worker_that_ends_before_it_is_adopted_is_seen_to() -> None:
    """As long as its parent lives, which does not wait for it, nobody can."""

    async def run() -> None:
        prctl.adopt_orphans()
        code = "import os, time; pid = os.fork() or os._exit(7); print(pid, flush=True); time.sleep(0.5); os._exit(0)"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as middle:
            assert middle.stdout is not None
            child = Child(int(middle.stdout.readline()))
            assert await child.wait(5.0) == "exited with status 7"

    asyncio.run(run())
