from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sensorium import way
from sensorium.errors import InvalidRequest, ModelNotFound
from sensorium.protocol.parsed import Given, Parsed
from sensorium.settings import MediaLimits
from sensorium.types import Delta, MediaItem, MediaSlot, MediaSource, Message, Request, SamplingParams, Started, Text
from tests.fakes import EchoModel, FakePool, fetch_data

GIF = "data:image/gif;base64,R0lG"


def request(*parts: Text | MediaSlot, media: tuple[MediaItem, ...] = (), max_tokens: int | None = None) -> Request:
    return Request("r", SamplingParams(max_tokens=max_tokens), (Message("user", parts),), media=media)


def run(parsed: Parsed, pool: FakePool, fetch: way.Fetch = fetch_data) -> str:
    async def collect() -> str:
        events = [event async for event in way.stream(parsed, pool, fetch, MediaLimits())]
        assert isinstance(events[0], Started)
        return "".join(event.text for event in events if isinstance(event, Delta))

    return asyncio.run(collect())


def test_items_at_hand_come_before_fetched_ones() -> None:
    pool = FakePool({"echo": EchoModel()})
    at_hand = MediaItem("image", b"12345", "images[0]")
    parsed = Parsed(
        "echo",
        request(MediaSlot("image", 1), Text("-"), MediaSlot("image", 0), media=(at_hand,)),
        (MediaSource("image", GIF, "there"),),
    )
    assert run(parsed, pool) == "<image 3>-<image 5>"
    assert pool.leases == 0


def test_refused_before_anything_is_fetched() -> None:
    async def never(sources: Sequence[MediaSource], limits: MediaLimits) -> list[MediaItem]:
        raise AssertionError

    parsed = Parsed("echo", request(MediaSlot("image", 0)), (MediaSource("image", GIF, "there"),))
    for model in (EchoModel(modalities=("text",)), EchoModel(limit_mm_per_prompt={"image": 0})):
        pool = FakePool({"echo": model})
        with pytest.raises(InvalidRequest) as caught:
            run(parsed, pool, never)
        assert caught.value.param == "there"
        assert (pool.leases, model.seen) == (0, [])


def test_sampling_given_or_final() -> None:
    pool = FakePool({"echo": EchoModel()})
    run(Parsed("echo", request(Text("abc"), max_tokens=2)), pool)
    run(Parsed("echo", request(Text("abc")), given=Given({"top_k": 4}, {"max_tokens": 1, "top_k": 9})), pool)
    final, merged = (seen.sampling for seen in pool.models["echo"].seen)
    assert final == SamplingParams(max_tokens=2)
    assert merged == SamplingParams(max_tokens=1, top_k=4, temperature=0.5)


def test_unknown_model() -> None:
    with pytest.raises(ModelNotFound):
        run(Parsed("other", request(Text("a"))), FakePool({"echo": EchoModel()}))


def test_closing_aborts_in_the_model_and_ends_the_lease() -> None:
    pool = FakePool({"echo": EchoModel()})

    async def leave() -> None:
        events = way.stream(Parsed("echo", request(Text("abc"))), pool, fetch_data, MediaLimits())
        await anext(events)
        await anext(events)
        assert (pool.leases, pool.models["echo"].running) == (1, 1)
        await events.aclose()

    asyncio.run(leave())
    assert (pool.leases, pool.models["echo"].running, pool.models["echo"].closed_early) == (0, 0, 1)
