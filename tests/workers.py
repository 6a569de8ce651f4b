"""Helpers of the tests that run worker processes with the fake model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sensorium.registry.pool import Pool
from sensorium.settings import EngineSettings
from sensorium.types import Delta, Event, Request, SamplingParams
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.launcher import Launcher

FAKE = "fake_native:FakeModel"


def request(request_id: str, prompt: str, **sampling: Any) -> Request:
    return Request(request_id, SamplingParams(**{"max_tokens": None, **sampling}), prompt=prompt)


def text(events: Sequence[Event], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.index == index)


async def answer(handle: WorkerHandle, question: Request) -> str:
    return text([event async for event in handle.generate(question)])


@asynccontextmanager
async def launcher() -> AsyncGenerator[Launcher, None]:
    started = Launcher(FAKE, preload=())
    try:
        yield started
    finally:
        started.close()


@asynccontextmanager
async def worker(model: str = "fake", **settings: Any) -> AsyncGenerator[WorkerHandle, None]:
    async with launcher() as started:
        handle = await WorkerHandle.load(started, EngineSettings(model, **settings))
        try:
            yield handle
        finally:
            if not handle.died.done():
                await handle.close()


@asynccontextmanager
async def pool(models: dict[str, str], **options: Any) -> AsyncGenerator[Pool, None]:
    settings = {name: EngineSettings(model, name=name) for name, model in models.items()}
    made = Pool(settings, launcher=Launcher(FAKE, preload=()), **options)
    try:
        yield made
    finally:
        await made.close(0.0)


async def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def process_gone(pid: int) -> bool:
    """Whether the process has ended (a zombie whose parent has not looked yet has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"
