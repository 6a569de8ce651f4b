"""The way of a request. The server, the command line and the offline API all call `stream`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec

from sensorium.errors import InvalidRequest
from sensorium.protocol.parsed import Parsed
from sensorium.registry.interface import Lender, ModelHandle
from sensorium.settings import MediaLimits
from sensorium.types import Adapter, Event, MediaItem, MediaSource, ModelInfo, Request

Fetch = Callable[[Sequence[MediaSource], MediaLimits], Awaitable[list[MediaItem]]]


async def stream(parsed: Parsed, pool: Lender, fetch: Fetch, limits: MediaLimits) -> AsyncGenerator[Event, None]:
    """Yield the answer's events: Started first. Closing it aborts the request in the worker.

    Raises:
        SensoriumError: before Started, the request was refused; after it, the answer was lost.
    """
    adapter = pool.adapter(parsed.model)  # now: unloaded later, it still serves this request
    async with pool.lease(parsed.model) as model:
        request = await prepare(parsed, model, fetch, limits, adapter)
        async with aclosing(model.generate(request)) as events:
            async for event in events:
                yield event


async def prepare(
    parsed: Parsed, model: ModelHandle, fetch: Fetch, limits: MediaLimits, adapter: Adapter | None = None
) -> Request:
    """Return the request as `model` takes it: the model's own sampling defaults filled in, the media's bytes here.

    `adapter` is what the name in the request stands for, where that is no model.
    """
    check_media(parsed, model.info)
    sampling = parsed.sampling(model.info)
    fetched = await fetch(parsed.sources, limits) if parsed.sources else []
    return msgspec.structs.replace(
        parsed.request,
        sampling=sampling,
        media=(*parsed.request.media, *fetched),
        adapter=adapter or parsed.request.adapter,
    )


def check_media(parsed: Parsed, info: ModelInfo) -> None:
    """Refuse media that the model cannot take, or too many of them, before a byte of them is fetched.

    Raises:
        InvalidRequest: `param` is the path of the first item too many.
    """
    counts: Counter[str] = Counter()
    items: list[MediaItem | MediaSource] = [*parsed.request.media, *parsed.sources]
    for item in items:
        if item.kind not in info.modalities:
            takes = ", ".join(info.modalities)
            raise InvalidRequest(
                f"Model does not support multi-modal inputs of kind {item.kind}: {info.name!r} takes {takes}.",
                param=item.where,
                code="unsupported_modality",
            )
        counts[item.kind] += 1
        limit = info.limit_mm_per_prompt.get(item.kind)
        if limit is not None and counts[item.kind] > limit:
            raise InvalidRequest(
                f"At most {limit} {item.kind}(s) may be provided in one request.",
                param=item.where,
                code="too_many_media",
            )
