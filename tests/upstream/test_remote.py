"""The engine `remote` against a server that takes nothing but OpenAI's own fields."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from PIL import Image

from sensorium.errors import (
    ConfigurationError,
    InvalidRequest,
    ModelUnavailable,
    SensoriumError,
    UpstreamFailed,
)
from sensorium.protocol.tally import Tally
from sensorium.settings import EngineSettings
from sensorium.types import (
    Delta,
    Event,
    MediaItem,
    MediaSlot,
    MediaUse,
    Message,
    Request,
    SamplingParams,
    Started,
    Text,
)
from sensorium.upstream.check import MediaCheck
from sensorium.upstream.remote import RemoteModel, api_url
from sensorium.worker.local import LocalHandle
from tests.upstream.strict_openai import KEY, Strict, strict_server
from tests.workers import text


@pytest.fixture
def server() -> Iterator[Strict]:
    with strict_server() as running:
        yield running


@asynccontextmanager
async def remote(server: Strict, **more: Any) -> AsyncGenerator[LocalHandle, None]:
    asked = EngineSettings("gpt", name="mine", engine="remote", **{"base_url": server.url, "api_key": KEY, **more})
    handle = await LocalHandle.load(RemoteModel.load, asked, lambda *_: None)
    try:
        yield handle
    finally:
        await asyncio.to_thread(handle.close)


def chat(*parts: Any, media: tuple[MediaItem, ...] = (), request: dict[str, Any] | None = None, **more: Any) -> Request:
    content = tuple(Text(part) if isinstance(part, str) else part for part in parts)
    sampling = SamplingParams(**{"max_tokens": None, **more})
    messages = (Message("user", content),)
    return Request("a", sampling, messages=messages, media=media, add_special_tokens=False, **(request or {}))


def picture(where: str) -> MediaItem:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return MediaItem("image", buffer.getvalue(), where)


async def events(handle: LocalHandle, request: Request) -> list[Event]:
    return [event async for event in handle.generate(request)]


def ask(server: Strict, request: Request, **settings: Any) -> list[Event]:
    async def run() -> list[Event]:
        async with remote(server, **settings) as handle:
            return await events(handle, request)

    return asyncio.run(run())


def counted(found: list[Event], n: int = 1) -> tuple[int, int, int]:
    tally = Tally(n)
    for event in found:
        tally.add(event)
    tally.check_complete()
    usage = tally.usage()
    return usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens


def test_an_answer_with_its_counts(server: Strict) -> None:
    found = ask(server, chat("hi"))
    assert isinstance(found[0], Started)
    assert text(found) == "Hello\u2028!"
    assert counted(found) == (9, 3, 4)
    assert server.bodies == [
        {
            "model": "gpt",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_nothing_of_the_client_goes_along_but_the_request(server: Strict) -> None:
    ask(server, chat("hi", request={"cache_salt": "of a key"}))
    sent = server.headers[0]
    assert sent["authorization"] == f"Bearer {KEY}"
    assert set(sent) == {
        *("host", "accept", "accept-encoding", "connection", "user-agent", "authorization"),
        *("content-length", "content-type"),
    }


def test_all_of_openais_fields(server: Strict) -> None:
    fields = {
        "n": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ("x", "y"),
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logit_bias": {5: 1.0},
        "max_tokens": 7,
        "logprobs": 2,
    }
    found = ask(server, chat("hi", **fields))
    assert [text(found, index) for index in range(2)] == ["Hello\u2028!"] * 2
    assert counted(found, 2) == (9, 6, 4)
    sent = server.bodies[0]
    expected = {**fields, "stop": ["x", "y"], "logit_bias": {"5": 1.0}, "logprobs": True, "top_logprobs": 2}
    assert {name: sent[name] for name in expected} == expected


def test_max_tokens_has_the_name_that_openai_itself_wants(server: Strict) -> None:
    server.owner = "system"
    ask(server, chat("hi", max_tokens=7))
    assert server.bodies[0]["max_completion_tokens"] == 7


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"top_k": 5}, "top_k"),
        ({"min_p": 0.1}, "min_p"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"stop_token_ids": (5,)}, "stop_token_ids"),
        ({"bad_words": ("x",)}, "bad_words"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"min_tokens": 2}, "min_tokens"),
        ({"skip_special_tokens": False}, "skip_special_tokens"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
        ({"stop": tuple("abcde")}, "stop"),
        ({"detokenize": False}, "detokenize"),
        ({"request": {"chat_template_kwargs": {"x": 1}}}, "chat_template_kwargs"),
        ({"request": {"continue_final_message": True}}, "continue_final_message"),
        ({"request": {"add_generation_prompt": False}}, "add_generation_prompt"),
        ({"request": {"tools": [{"type": "function"}]}}, "tools"),
        ({"request": {"mm_processor_kwargs": {"max_pixels": 1}}}, "mm_processor_kwargs.max_pixels"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(server: Strict, more: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask(server, chat("hi", **more))
    assert refused.value.param == named
    assert named in refused.value.message
    assert not server.bodies


def test_pictures_are_inline_and_errors_name_the_clients_place(server: Strict) -> None:
    item = picture("messages[3].content[0].image_url")
    ask(server, chat("see", MediaSlot("image", 0), media=(item,)))
    sent = server.bodies[0]["messages"][0]["content"]
    assert sent[0] == {"type": "text", "text": "see"}
    assert sent[1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    server.script = "refuse messages[0].content[1].image_url is ugly"
    with pytest.raises(InvalidRequest, match=r"^messages\[3\].content\[0\].image_url is ugly$") as refused:
        ask(server, chat("see", MediaSlot("image", 0), media=(item,)))
    assert refused.value.param == "messages[3].content[0].image_url"
    assert refused.value.code == "invalid_image"
    clip = MediaItem("video", b"\0\0\0\x18ftypmp42", "here")
    with pytest.raises(InvalidRequest, match="does not take video input"):
        ask(server, chat(MediaSlot("video", 0), media=(clip,)))


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("status 401", ModelUnavailable, "refuses the key"),
        ("status 429", ModelUnavailable, "busy now; try again in 7 s"),
        ("status 503", ModelUnavailable, "not available now"),
        ("status 500", UpstreamFailed, "failed (status 500)"),
        ("status 302", UpstreamFailed, "redirects are not followed"),
        ("broken", UpstreamFailed, "ended before the answer was finished"),
        ("garbage", UpstreamFailed, "no piece of an answer"),
        ("error", UpstreamFailed, "failed (status 500)"),
        ("silent", UpstreamFailed, "said nothing for 1 s"),
    ],
)
def test_failures_are_typed_and_tell_no_secrets(
    server: Strict, script: str, error: type[SensoriumError], words: str
) -> None:
    server.script = script
    with pytest.raises(error) as failed:
        ask(server, chat("hi"), timeout_s=1.0)
    assert words in failed.value.message
    assert "secret" not in failed.value.message
    assert KEY not in failed.value.message
    assert len(server.bodies) == 1  # nothing is generated twice
    if script in ("status 429", "status 503"):
        assert failed.value.retry_after_s == 7


def test_a_server_that_is_gone(server: Strict) -> None:
    async def run() -> None:
        async with remote(server) as handle:
            server.shutdown()
            server.server_close()
            with pytest.raises(UpstreamFailed, match="cannot be reached"):
                await events(handle, chat("hi"))

    asyncio.run(run())


def test_other_reasons_to_finish(server: Strict) -> None:
    server.script = "filter"
    final = ask(server, chat("hi"))[-1]
    assert isinstance(final, Delta)
    assert (final.finish_reason, final.stop_reason) == ("stop", "content_filter")


def test_an_aborted_answer_hangs_up(server: Strict) -> None:
    server.script = "slow"

    async def run() -> None:
        async with remote(server) as handle:
            answer = handle.generate(chat("hi", n=16))
            async for event in answer:
                if isinstance(event, Delta):
                    break
            await answer.aclose()
            assert await asyncio.to_thread(server.hung_up.wait, 5)

    asyncio.run(run())


def test_tokens_cannot_be_had(server: Strict) -> None:
    async def run() -> None:
        async with remote(server) as handle:
            with pytest.raises(InvalidRequest, match="cannot tokenize"):
                await handle.tokenize(chat("hi"))
            with pytest.raises(InvalidRequest, match="cannot detokenize"):
                await handle.detokenize([1])

    asyncio.run(run())


def test_a_server_without_a_list_of_models(server: Strict) -> None:
    server.script = "no list"

    async def run() -> None:
        async with remote(server) as handle:
            assert handle.info.max_model_len == 0
            server.script = ""
            assert text(await events(handle, chat("hi"))) == "Hello\u2028!"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"api_key": "sk-wrong"}, "refuses the key"),
        ({"api_key": "env:NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE, which is not set"),
        ({"base_url": "http://127.0.0.1:1"}, "cannot be reached"),
        ({"base_url": "ftp://x"}, "must be http"),
        ({"base_url": "https://user:word@x"}, "user name or password"),
        ({"base_url": None}, "needs a base_url"),
        ({"chat_template": "x"}, "chat_template cannot be set with the engine remote"),
        ({"engine_args": {"dialect": "klingon"}}, "dialect is 'klingon'"),
        ({"engine_args": {"eager": True}}, "no option 'eager'"),
    ],
)
def test_what_cannot_be_loaded(server: Strict, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as failed:
        ask(server, chat("hi"), **({"base_url": server.url} | more))
    assert words in failed.value.message
    assert "sk-wrong" not in failed.value.message


def test_a_model_that_is_not_there(server: Strict) -> None:
    asked = EngineSettings("other", engine="remote", base_url=server.url, api_key=KEY)
    with pytest.raises(ConfigurationError, match="has no model 'other'; it has gpt"):
        RemoteModel.load(asked, on_progress=print, on_events=print, on_failed=print)


def test_a_key_from_the_environment(server: Strict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", KEY)
    assert text(ask(server, chat("hi"), api_key="env:THEIR_KEY")) == "Hello\u2028!"


def test_urls() -> None:
    assert api_url("https://example.com") == "https://example.com/v1"
    assert api_url("https://example.com/api/v1/") == "https://example.com/api/v1"


def test_media_that_take_long_keep_nobody_from_connecting(server: Strict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.upstream.client._CONNECT_S", 2.0)

    def check(_: MediaCheck, item: MediaItem) -> MediaUse:
        time.sleep(3.0)
        return MediaUse("image", item.where)

    monkeypatch.setattr(MediaCheck, "check", check)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # few threads

    async def run() -> None:
        async with remote(server, base_url=server.url.replace("127.0.0.1", "localhost")) as handle:
            asked = [chat(MediaSlot("image", 0), media=(picture("here"),)) for _ in range(10)]
            asked = [msgspec.structs.replace(request, id=str(number)) for number, request in enumerate(asked)]
            for found in await asyncio.gather(*(events(handle, request) for request in asked)):
                assert text(found) == "Hello\u2028!"

    asyncio.run(run())
