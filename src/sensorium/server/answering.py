"""Sends an answer: as its events come, or folded into one body. A client that leaves takes its request with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sensorium.errors import SensoriumError
from sensorium.protocol import sse
from sensorium.protocol.answer import Answer
from sensorium.server.read import ClientGone
from sensorium.server.record import Record, record_of
from sensorium.server.reply import json_response
from sensorium.server.telemetry import CLIENT_GONE, Metrics, internal_error
from sensorium.types import Event, Started

logger = logging.getLogger(__name__)

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the tokens back
]


class Answering(Response):
    """The response to a generation request. It begins with the first event, so that a refusal can be a real 4xx."""

    def __init__(self, events: AsyncGenerator[Event, None], answer: Answer, streamed: bool, metrics: Metrics) -> None:
        super().__init__()
        self._events = events
        self._answer = answer
        self._streamed = streamed
        self._between = metrics.inter_token.labels(answer.model)
        self._last_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        record.model = self._answer.model
        try:
            async with watched(receive, record), aclosing(self._events) as events:
                if self._streamed:
                    await self._stream(events, record, send)
                else:
                    async for event in events:
                        self._note(event, record)
                        self._answer.add(event)
                    await json_response(self._answer.body())(scope, receive, send)
        except ClientGone:
            record.status = record.status or CLIENT_GONE
        except Exception as error:
            if not (record.status and self._streamed):
                raise
            if not isinstance(error, SensoriumError):
                logger.exception("request %s failed while it was streamed", record.id)
                error = internal_error(record)
            await _send(send, sse.error_event(error), more=False)
        finally:
            record.prompt_tokens = self._answer.tally.prompt_tokens
            record.completion_tokens = self._answer.tally.completion_tokens

    async def _stream(self, events: AsyncIterator[Event], record: Record, send: Send) -> None:
        async for event in events:
            self._note(event, record)
            data = self._answer.chunk(event)
            if not record.status:
                await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
            if data:
                await _send(send, data)
        await _send(send, self._answer.end(), more=False)

    def _note(self, event: Event, record: Record) -> None:
        if isinstance(event, Started) or event.index > 0:
            return
        now_s = time.perf_counter()
        if record.ttft_s is None:
            record.ttft_s = now_s - record.start_s
        else:
            self._between.observe(now_s - self._last_s)
        self._last_s = now_s


@asynccontextmanager
async def watched(receive: Receive, record: Record) -> AsyncIterator[None]:
    """Cancel the body of this context when the client leaves.

    Raises:
        ClientGone: it left.
        SensoriumError: the server stopped the request (`record.stopped`).
    """
    task = asyncio.current_task()
    assert task is not None

    async def cancel_when_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if record.stopped is None:
            record.stopped = ClientGone()
            task.cancel()

    watcher = asyncio.create_task(cancel_when_gone())
    try:
        yield
    except asyncio.CancelledError:
        if record.stopped is None:
            raise
        task.uncancel()
        raise record.stopped from None
    finally:
        watcher.cancel()


async def _send(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
