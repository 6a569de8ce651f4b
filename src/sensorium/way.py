"""The way of a request. The server, the command line and the offline API all call `stream`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import msgspec

from sensorium.errors import InvalidRequest, ModelLoading
from sensorium.protocol.parsed import Parsed
from sensorium.registry.interface import Lender, ModelHandle
from sensorium.settings import MediaLimits
from sensorium.types import Adapter, Event, MediaItem, MediaSource, ModelInfo, Request, Text

_RETRY_AFTER_S = 2
_ENOUGH = 512  # characters of a text or an address that tell it from others

Fetch = Callable[[Sequence[MediaSource], MediaLimits], Awaitable[list[MediaItem]]]


async def stream(parsed: Parsed, pool: Lender, fetch: Fetch, limits: MediaLimits) -> AsyncGenerator[Event, None]:
    """Yield the answer's events: Started first. Closing it aborts the request in the worker.

    Raises:
        SensoriumError: before Started, the request was refused; after it, the answer was lost.
    """
    adapter = pool.adapter(parsed.model)  # now: unloaded later, it still serves this request
    async with held(parsed.model, pool, parsed.wait_s, beginning(parsed)) as model:
        request = await prepare(parsed, model, fetch, limits, adapter)
        async with aclosing(model.generate(request)) as events:
            async for event in events:
                yield event


@asynccontextmanager
async def held(
    name: str, pool: Lender, wait_s: float | None = None, near: str = ""
) -> AsyncGenerator[ModelHandle, None]:
    """Hold a model, waiting at most `wait_s` for it to be loaded (None: as long as it takes).

    Raises:
        ModelLoading: it is not loaded yet. Loading goes on.
        SensoriumError: what the pool raises.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(wait_s or None) as patience:
                model = await stack.enter_async_context(pool.lease(name, wait=wait_s != 0, near=near))
        except TimeoutError:
            if not patience.expired():
                raise
            raise ModelLoading(
                f"The model {name!r} was not loaded within {wait_s:g} s; loading goes on.", retry_after_s=_RETRY_AFTER_S
            ) from None
        yield model


def beginning(parsed: Parsed) -> str:
    """Return what requests have in common whose beginning is in the same caches: a conversation's turns, one document.

    Everything up to the first thing the user said, and whose it is; long parts by how they begin.
    """
    request = parsed.request
    texts = [request.cache_salt or ""]
    if isinstance(request.prompt, str):
        texts.append(request.prompt[:_ENOUGH])
    for message in request.messages or ():
        texts += [part.text[:_ENOUGH] for part in message.content if isinstance(part, Text)]
        if message.role == "user":
            break
    texts += [f"{source.url[:_ENOUGH]}{len(source.url)}" for source in parsed.sources[:1]]
    return "\0".join(texts)


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
