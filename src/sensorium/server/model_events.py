"""Server-sent events of what happens to models: first how all are now, then every change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sensorium.errors import ModelNotFound, Overloaded
from sensorium.protocol import sse
from sensorium.protocol.model_status import change_event
from sensorium.registry.status import Change, ModelStatus
from sensorium.server.answering import STREAM_HEADERS, watched
from sensorium.server.read import ClientGone
from sensorium.server.record import record_of
from sensorium.server.routes import Gateway, gateway_of, served_name
from sensorium.server.telemetry import CLIENT_GONE

MOST_STREAMS = 64
ALIVE_S = 15.0  # after so long without a change an event says so, to whatever sits between
PROGRESS_S = 0.2
_LOOK_S = 0.25  # how soon the end of the server ends a stream


async def events(request: Request) -> Response:
    """Tell what happens to all models, or to one: server-sent events, each a `data:` line."""
    gateway = gateway_of(request)
    alias = request.path_params.get("alias")
    if alias is not None:
        alias = served_name(alias, gateway.pool)
    if request.method == "HEAD":
        return Response(headers={"content-type": "text/event-stream; charset=utf-8"})
    if gateway.watchers >= MOST_STREAMS:
        raise Overloaded(f"{gateway.watchers} clients watch already, as many as may.", retry_after_s=10)
    return Events(gateway, alias)


class Events(Response):
    """The stream. It ends when the client leaves, the one model is removed, or the server goes down."""

    def __init__(self, gateway: Gateway, alias: str | None) -> None:
        super().__init__()
        self._gateway = gateway
        self._alias = alias
        self._last: dict[str, tuple[ModelStatus | None, float]] = {}  # by name: what was told, and when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        self._gateway.watchers += 1
        try:
            async with watched(receive, record), aclosing(self._told()) as told:
                await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
                async for data in told:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": sse.DONE, "more_body": False})
        except ClientGone:
            record.status = record.status or CLIENT_GONE
        finally:
            self._gateway.watchers -= 1

    async def _told(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._gateway.pool.changes()) as changes:
            upcoming = asyncio.ensure_future(anext(changes))
            try:
                await asyncio.sleep(0)  # it listens from now on, so nothing happens unseen after the snapshot
                for name in self._gateway.pool.names() if self._alias is None else [self._alias]:
                    yield self._snapshot(name)
                silent_s = 0.0
                while not self._gateway.gate.draining:
                    await asyncio.wait([upcoming], timeout=_LOOK_S)
                    if not upcoming.done():
                        silent_s += _LOOK_S
                        if silent_s >= ALIVE_S:
                            yield sse.event(change_event("alive", self._alias or "", None))
                            silent_s = 0.0
                        continue
                    change, silent_s = upcoming.result(), 0.0
                    upcoming = asyncio.ensure_future(anext(changes))
                    if self._alias in (None, change.alias) and self._is_news(change):
                        yield _event(change)
                    if self._alias == change.alias and change.status is None:
                        return
            except StopAsyncIteration:  # the pool was closed
                return
            finally:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)

    def _is_news(self, change: Change) -> bool:
        """Whether to tell it: progress alone comes with every tensor, and is told a few times a second."""
        if change.status is None:
            self._last.pop(change.alias, None)
            return True
        now_s = time.monotonic()
        rest = msgspec.structs.replace(change.status, fraction=0.0, replicas=())
        before, last_s = self._last.get(change.alias, (None, 0.0))
        if rest.phase and rest == before and now_s - last_s < PROGRESS_S:
            return False
        self._last[change.alias] = (rest, now_s)
        return True

    def _snapshot(self, name: str) -> bytes:
        try:
            status = self._gateway.pool.status(name)
        except ModelNotFound:  # removed a moment ago
            return sse.event(change_event("removed", name, None))
        return sse.event(change_event("snapshot", name, status))


def _event(change: Change) -> bytes:
    kind = "removed" if change.status is None else "changed"
    return sse.event(change_event(kind, change.alias, change.status))
