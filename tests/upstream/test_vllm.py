"""The engine `vllm` in a real worker process, with a server that has vLLM's face in place of vLLM."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from sensorium.errors import (
    ConfigurationError,
    ContextLengthExceeded,
    InvalidRequest,
    MediaError,
    SensoriumError,
    WorkerDied,
)
from sensorium.settings import EngineSettings
from sensorium.types import (
    Adapter,
    Delta,
    Event,
    MediaItem,
    MediaOptions,
    MediaSlot,
    Message,
    Request,
    SamplingParams,
    Started,
    Text,
)
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.launcher import Launcher
from tests.vllm_stand_in import checkpoint, settings
from tests.workers import process_gone, text, until

ENTRY = "sensorium.upstream.vllm:VllmModel"


@asynccontextmanager
async def running(asked: EngineSettings, **load: Any) -> AsyncGenerator[WorkerHandle, None]:
    launcher = Launcher(ENTRY, preload=())
    try:
        handle = await WorkerHandle.load(launcher, asked, **load)
        try:
            yield handle
        finally:
            if not handle.died.done():
                await handle.close()
    finally:
        launcher.close()


def chat(request_id: str, *parts: Any, media: tuple[MediaItem, ...] = (), **sampling: Any) -> Request:
    content = tuple(Text(part) if isinstance(part, str) else part for part in parts)
    fields = {"max_tokens": None, "temperature": 0.0, **sampling}
    return Request(
        request_id,
        SamplingParams(**fields),
        messages=(Message("user", content),),
        media=media,
        add_special_tokens=False,
    )


def raw(request_id: str, prompt: str, **sampling: Any) -> Request:
    return Request(request_id, SamplingParams(**{"max_tokens": None, "temperature": 0.0, **sampling}), prompt=prompt)


async def events(handle: WorkerHandle, request: Request) -> list[Event]:
    return [event async for event in handle.generate(request)]


def last(found: list[Event], index: int = 0) -> Delta:
    return [event for event in found if isinstance(event, Delta) and event.index == index][-1]


def family(handle: WorkerHandle) -> list[psutil.Process]:
    return psutil.Process(handle.child.pid).children(recursive=True)


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def vllm(handle: WorkerHandle) -> psutil.Process:
    return next(child for child in family(handle) if "vllm.entrypoints.openai.api_server" in words(child)[:4])


async def gone(processes: list[psutil.Process], seconds: float = 10.0) -> None:
    await until(lambda: all(process_gone(process.pid) for process in processes), seconds)


def picture() -> MediaItem:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "PNG")
    return MediaItem("image", buffer.getvalue(), "messages[0].content[1].image_url")


def test_it_answers_as_the_other_engines_do(tmp_path: Path) -> None:
    phases: list[str] = []

    async def run() -> None:
        asked = settings(tmp_path)
        async with running(asked, on_progress=lambda phase, _: phases.append(phase)) as handle:
            info = handle.info
            assert (info.engine, info.name, info.max_model_len, info.kv_cache_tokens) == ("vllm", "fake", 200, 209_664)
            assert info.modalities == ("text", "image", "video")
            assert info.default_sampling == {"temperature": 0.25, "max_tokens": 12}

            found = await events(handle, chat("a", "hello"))
            assert found[0] == Started("a", 5, [104, 101, 108, 108, 111])
            assert text(found) == "hello"
            assert last(found).finish_reason == "stop"
            assert sum(len(event.token_ids) for event in found if isinstance(event, Delta)) == 5

            two = await events(handle, chat("b", "hello", n=2, temperature=1.0, max_tokens=3))
            assert [text(two, index) for index in range(2)] == ["hel", "hel"]
            assert [last(two, index).finish_reason for index in range(2)] == ["length", "length"]

            # vLLM refuses several greedy answers; the others give them, all the same.
            same = await events(handle, chat("c", "hello", n=3))
            assert [text(same, index) for index in range(3)] == ["hello"] * 3

            stopped = await events(handle, raw("d", "hello", stop=("l",)))
            assert text(stopped) == "he"
            assert (last(stopped).finish_reason, last(stopped).stop_reason) == ("stop", "l")

            for request in (chat("e", "ab", logprobs=2), raw("f", "ab", logprobs=2)):
                position = last(await events(handle, request)).logprobs[0]
                assert (position.chosen.token, position.chosen.token_id, position.chosen.rank) == ("b", 98, 1)
                assert [(entry.token, entry.rank) for entry in position.top] == [("b", 1), ("?", 2)]

            assert (await handle.tokenize(raw("g", "hi"))).token_ids == [104, 105]
            assert (await handle.detokenize([104, 105])).text == "hi"

            # As elsewhere: what the context does not leave is not asked for.
            longest = await events(handle, raw("h", "slow" * 10, max_tokens=500))
            assert len(text(longest)) == 160
            assert last(longest).finish_reason == "length"

    asyncio.run(run())
    assert phases == ["starting vLLM", "loading weights", "loading weights", "measuring memory", "starting to listen"]


def test_media_are_inline_and_looked_at_before(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(settings(tmp_path)) as handle:
            item = picture()
            request = chat("a", "see ", MediaSlot("image", 0), media=(item,))
            found = await events(handle, request)
            assert text(found) == f"see [image_url {len(item.data)}]"
            assert isinstance(found[0], Started)
            assert [(use.where, use.size) for use in found[0].media] == [(item.where, (30, 40))]

            broken = MediaItem("image", item.data[:60], item.where)
            with pytest.raises(MediaError, match="truncated") as refused:
                await events(handle, chat("b", MediaSlot("image", 0), media=(broken,)))
            assert refused.value.param == item.where

            clip = MediaItem("video", b"", "here", frames=(item.data, item.data), options=MediaOptions(fps=2))
            with pytest.raises(InvalidRequest, match="`fps` of a media item") as refused:
                await events(handle, chat("c", MediaSlot("video", 0), media=(clip,)))
            assert refused.value.param == "here"

    asyncio.run(run())


def test_refusals_keep_their_words_and_what_cannot_be_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(settings(tmp_path)) as handle:
            with pytest.raises(ContextLengthExceeded, match=r"maximum context length is 200 tokens\.$"):
                await events(handle, chat("a", "x" * 300))
            wanted = chat("b", "hi")
            for name, value in (("mm_processor_kwargs", {"max_pixels": 1}), ("adapter", Adapter("sql", "/x"))):
                request = Request("c", wanted.sampling, messages=wanted.messages, **{name: value})
                with pytest.raises(InvalidRequest):
                    await events(handle, request)
            with pytest.raises(InvalidRequest, match="cannot sleep"):
                await handle.sleep()

    asyncio.run(run())


def test_an_id_is_free_again_once_its_end_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(settings(tmp_path)) as handle:
            wanted = chat("a", "hi")
            refused = Request("a", wanted.sampling, messages=wanted.messages, mm_processor_kwargs={"max_pixels": 1})
            for _ in range(300):
                with pytest.raises(InvalidRequest):
                    await asyncio.wait_for(events(handle, refused), 20)
            for _ in range(10):
                assert text(await asyncio.wait_for(events(handle, wanted), 20)) == "hi"

    asyncio.run(run())


def test_an_aborted_answer_leaves_nothing_running(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(settings(tmp_path)) as handle:
            answer = handle.generate(chat("a", "slow"))
            async for event in answer:
                if isinstance(event, Delta):
                    break
            await answer.aclose()
            await until(lambda: handle.counters.get("requests_running") == 0 and handle.counters["upstream_requests"])
            assert text(await events(handle, chat("a", "again"))) == "again"

    asyncio.run(run())


def test_adapters_are_read_by_vllm(tmp_path: Path) -> None:
    folder = tmp_path / "sql"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4}))

    async def run() -> None:
        async with running(settings(tmp_path, enable_lora=True)) as handle:
            adapter = Adapter("sql", str(folder))
            request = chat("a", "hi")
            asked = Request("a", request.sampling, messages=request.messages, adapter=adapter)
            assert text(await events(handle, asked)) == "hi+sql"  # read when first asked for
            await handle.unload_adapter("sql")
            await handle.load_adapter(adapter)
            assert text(await events(handle, asked)) == "hi+sql"
            with pytest.raises(SensoriumError, match="No adapter found"):
                await handle.load_adapter(Adapter("none", str(tmp_path / "none")))

    asyncio.run(run())


@pytest.mark.parametrize("how", ["crash", "kill", "guardian"])
def test_the_end_of_vllm_is_a_typed_error_and_the_end_of_the_worker(tmp_path: Path, how: str) -> None:
    async def run() -> None:
        async with running(settings(tmp_path)) as handle:
            processes = family(handle)
            assert len(processes) >= 3  # guardian, server, engine

            async def ask() -> None:
                seen = 0
                async for event in handle.generate(chat("a", "crash" if how == "crash" else "slow")):
                    seen += isinstance(event, Delta)
                    if seen == 2 and how != "crash":
                        victim = processes[0] if how == "guardian" else vllm(handle)
                        victim.send_signal(signal.SIGKILL)

            with pytest.raises(WorkerDied, match="Send the request again"):
                await ask()
            await asyncio.wait_for(handle.died, 30)
            await gone(processes)

    asyncio.run(run())


def test_a_stopped_vllm_is_noticed(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(settings(tmp_path)) as handle:
            processes = family(handle)
            started = time.monotonic()
            with pytest.raises(WorkerDied, match="stopped by a signal"):
                await events(handle, chat("a", "stopped"))
            assert time.monotonic() - started < 30
            await asyncio.wait_for(handle.died, 30)
            await gone(processes)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["closed", "killed", "killed while loading"])
def test_nothing_of_vllm_outlives_its_worker(tmp_path: Path, how: str) -> None:
    async def run() -> None:
        if how == "killed while loading":
            launcher = Launcher(ENTRY, preload=())
            loading = asyncio.create_task(WorkerHandle.load(launcher, settings(tmp_path)))
            await until(lambda: any("EngineCore" in words(child) for child in descendants()))
            processes = descendants(without=launcher.pid)
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            launcher.close()
        else:
            async with running(settings(tmp_path)) as handle:
                processes = family(handle)
                if how == "killed":
                    handle.child.kill()
                    await asyncio.wait_for(handle.died, 30)
        assert len(processes) >= 3
        await gone(processes)

    def descendants(without: int | None = None) -> list[psutil.Process]:
        new = set(psutil.Process().children(recursive=True)) - others
        return [child for child in new if child.pid != without]

    others = set(psutil.Process().children(recursive=True))  # of other tests: a database, for one
    before = set(Path(os.environ.get("TMPDIR", "/tmp")).glob("sensorium-vllm-*"))
    asyncio.run(run())
    assert set(Path(os.environ.get("TMPDIR", "/tmp")).glob("sensorium-vllm-*")) <= before


@pytest.mark.parametrize(
    ("fake", "why"),
    [
        ("corrupt", "vLLM did not start: SafetensorError: Error while deserializing header: header too large"),
        ("dies", "was killed by signal 9"),
    ],
)
def test_a_load_that_fails_says_why(tmp_path: Path, fake: str, why: str) -> None:
    async def run() -> None:
        with pytest.raises(ConfigurationError) as failed:
            async with running(settings(tmp_path, engine_args={"fake": fake})):
                pass
        assert why in failed.value.message

    asyncio.run(run())


def test_without_an_interpreter_that_has_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.upstream.interpreter import find_interpreter

    monkeypatch.delenv("SENSORIUM_VLLM_PYTHON", raising=False)
    with pytest.raises(ConfigurationError, match="SENSORIUM_VLLM_PYTHON"):
        find_interpreter(None)
    with pytest.raises(ConfigurationError, match="cannot be run"):
        find_interpreter(str(tmp_path / "nothing"))
    import sys

    with pytest.raises(ConfigurationError, match="has no vLLM"):
        find_interpreter(sys.executable)
    assert checkpoint(tmp_path)
