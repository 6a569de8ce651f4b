"""Several prompts of one request, answered as one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from sensorium.types import Event, Started


async def merged(streams: Sequence[AsyncGenerator[Event, None]], n: int) -> AsyncGenerator[Event, None]:
    """Yield the events of all streams as they come; choice `i` of stream `s` becomes choice `s * n + i`.

    Nothing is yielded before every stream has started, so that a prompt that is refused refuses the request.
    The first error of a stream ends all of them.
    """
    queue: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    async def pump(stream: AsyncGenerator[Event, None], offset: int) -> None:
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    if not isinstance(event, Started):
                        event = msgspec.structs.replace(event, index=event.index + offset)
                    queue.put_nowait(event)
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(pump(stream, number * n)) for number, stream in enumerate(streams)]
    try:
        held: list[Event] = []
        waiting = running = len(streams)
        while running:
            event = await queue.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                running -= 1
                continue
            waiting -= isinstance(event, Started)
            held.append(event)
            if not waiting:
                for ready in held:
                    yield ready
                held.clear()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
