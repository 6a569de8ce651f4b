from __future__ import annotations

import asyncio
import os
import signal
import socket

import msgspec
import pytest

from sensorium.errors import ConfigurationError, InvalidRequest, ModelUnavailable, SensoriumError, WorkerDied
from sensorium.settings import EngineSettings
from sensorium.types import Delta, MediaItem, Started
from sensorium.worker.channel import Channel
from sensorium.worker.child import Child
from sensorium.worker.handle import WorkerHandle
from tests.workers import answer, launcher, process_gone, request, text, until, worker


def test_it_answers() -> None:
    async def run() -> None:
        async with worker("fake", name="tiny") as handle:
            events = [event async for event in handle.generate(request("a", "hello", n=2))]
            assert isinstance(events[0], Started)
            assert events[0].num_prompt_tokens == 5
            assert text(events, 0) == text(events, 1) == "hello"
            assert [event.finish_reason for event in events if isinstance(event, Delta)][-2:] == ["stop", "stop"]
            assert handle.info.name == "tiny"
            assert (await handle.tokenize(request("b", "hi"))).token_ids == [104, 105]
            assert (await handle.detokenize([104, 105])).text == "hi"
            assert handle.num_in_flight == 0

    asyncio.run(run())


def test_a_hundred_at_once() -> None:
    async def run() -> None:
        async with worker() as handle:
            prompts = [f"question {number}" for number in range(100)]
            requests = [request(prompt, prompt) for prompt in prompts]
            assert await asyncio.gather(*(answer(handle, asked) for asked in requests)) == prompts

    asyncio.run(run())


def test_a_request_of_many_megabytes_gets_through() -> None:
    async def run() -> None:
        async with worker() as handle:
            item = MediaItem("image", bytes(10_000_000), "messages[0].content[0]")
            asked = msgspec.structs.replace(request("a", "size"), media=(item, item))
            assert await answer(handle, asked) == "20000000"

    asyncio.run(run())


@pytest.mark.parametrize("prompt", ["refused", "too late"])
def test_a_refusal_keeps_its_class_and_field_and_disturbs_nobody(prompt: str) -> None:
    async def run() -> None:
        async with worker() as handle:
            other = asyncio.create_task(answer(handle, request("other", "undisturbed")))
            with pytest.raises(InvalidRequest) as caught:
                await answer(handle, request("a", prompt))
            assert caught.value.param == "prompt"
            assert await other == "undisturbed"

    asyncio.run(run())


def test_an_unexpected_error_does_not_leak_its_text() -> None:
    async def run() -> None:
        async with launcher() as started:
            with pytest.raises(SensoriumError, match="RuntimeError") as caught:
                await WorkerHandle.load(started, EngineSettings("broken"))
            assert "secret" not in caught.value.message

    asyncio.run(run())


def test_closing_the_generator_aborts() -> None:
    async def run() -> None:
        async with worker() as handle:
            events = handle.generate(request("a", "slow"))
            assert isinstance(await anext(events), Started)
            await events.aclose()
            assert handle.num_in_flight == 0
            await until(lambda: handle.counters.get("aborted") == 1 and handle.counters["running"] == 0)

    asyncio.run(run())


def test_an_id_in_use_is_refused() -> None:
    async def run() -> None:
        async with worker() as handle:
            first = handle.generate(request("a", "slow"))
            await anext(first)
            with pytest.raises(InvalidRequest, match="'a' is running"):
                await answer(handle, request("a", "again"))
            assert isinstance(await anext(first), Delta)
            await first.aclose()

    asyncio.run(run())


def test_load_failures_say_why() -> None:
    async def run() -> None:
        async with launcher() as started:
            with pytest.raises(ConfigurationError, match="no folder 'missing'"):
                await WorkerHandle.load(started, EngineSettings("missing"))
            with pytest.raises(WorkerDied, match="exited with status 9 while it loaded"):
                await WorkerHandle.load(started, EngineSettings("crash"))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, r"killed by signal 9 \(SIGKILL\)"), (signal.SIGSEGV, r"killed by signal 11 \(SIGSEGV\)")],
)
def test_a_killed_worker_ends_its_requests_at_once(number: signal.Signals, words: str) -> None:
    async def run() -> None:
        async with worker() as handle:
            events = handle.generate(request("a", "slow"))
            await anext(events)
            os.kill(handle.child.pid, number)
            async with asyncio.timeout(10):
                with pytest.raises(WorkerDied, match=words):
                    async for _ in events:
                        pass
            assert not handle.alive
            with pytest.raises(WorkerDied):
                await answer(handle, request("b", "more"))

    asyncio.run(run())


def test_an_engine_whose_loop_ends_ends_the_process() -> None:
    async def run() -> None:
        async with worker() as handle:
            async with asyncio.timeout(10):
                with pytest.raises(WorkerDied, match="exited with status 70"):
                    await answer(handle, request("a", "poison"))

    asyncio.run(run())


def test_signals_to_the_group_do_not_end_a_worker() -> None:
    async def run() -> None:
        async with worker() as handle:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(handle.child.pid, number)
            assert await answer(handle, request("a", "still here")) == "still here"

    asyncio.run(run())


def test_closing_ends_the_process_and_what_runs() -> None:
    async def run() -> None:
        async with worker() as handle:
            events = handle.generate(request("a", "slow"))
            await anext(events)
            await handle.close()
            with pytest.raises(ModelUnavailable):
                async for _ in events:
                    pass
            assert handle.child.exited.result() == "exited with status 0"
            assert process_gone(handle.child.pid)

    asyncio.run(run())


def test_garbage_from_a_worker_is_its_death() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        process = await asyncio.create_subprocess_exec("sleep", "60")
        handle = WorkerHandle("fake", Child(process.pid))
        handle._channel = await Channel.open(ours, handle._on_frame, handle._on_lost)
        asked = asyncio.create_task(answer(handle, request("a", "question")))
        await asyncio.sleep(0.05)
        theirs.send(b"\x05\x00\x00\x00hello")
        with pytest.raises(WorkerDied, match="not a frame"):
            await asked
        theirs.close()

    asyncio.run(run())


def test_garbage_to_a_worker_ends_it() -> None:
    async def run() -> None:
        async with worker() as handle:
            handle._channel._write(b"\xff\xff\xff\xff")
            async with asyncio.timeout(10):
                assert await handle.died == "exited with status 70"

    asyncio.run(run())
