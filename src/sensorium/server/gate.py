"""How many requests may be inside at once, and how the last ones leave."""

from __future__ import annotations

import asyncio
import math
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from sensorium.errors import ModelUnavailable, Overloaded, SensoriumError
from sensorium.server.record import Record, record_of
from sensorium.server.reply import error_response

MAX_RETRY_AFTER_S = 60


class Gate:
    """Counts the requests inside. Closed (`draining`), it lets nobody in any more."""

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self.draining = False
        self._inside: dict[Record, asyncio.Task[object]] = {}
        self._mean_s = 1.0  # of a request, the last ones counting most

    def __len__(self) -> int:
        return len(self._inside)

    def check(self) -> None:
        """Let one more in.

        Raises:
            ModelUnavailable: the server is going down.
            Overloaded: too many are inside; half of them will have left after `retry_after_s`.
        """
        if self.draining:
            raise ModelUnavailable("The server is shutting down.", code="shutting_down", retry_after_s=5)
        if len(self._inside) >= self.max_in_flight:
            raise Overloaded(
                f"{len(self._inside)} requests are waiting or running, as many as this server takes; try again later.",
                retry_after_s=min(max(1, math.ceil(self._mean_s / 2)), MAX_RETRY_AFTER_S),
            )

    def enter(self, record: Record, task: asyncio.Task[object]) -> None:
        """Count `task` as inside."""
        self._inside[record] = task

    def leave(self, record: Record) -> None:
        """Count it no more."""
        del self._inside[record]
        self._mean_s += 0.1 * (time.perf_counter() - record.start_s - self._mean_s)

    async def empty(self, timeout_s: float) -> bool:
        """Wait until nobody is inside; False if that takes longer than `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self._inside and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return not self._inside

    def stop_all(self, reason: SensoriumError) -> None:
        """Cancel everybody inside; their clients are told `reason`."""
        for record, task in self._inside.items():
            if record.stopped is None:
                record.stopped = reason
                task.cancel()


class Admission:
    """ASGI middleware: every POST and DELETE goes through the gate, before its body is read."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or scope["method"] not in ("POST", "DELETE") or task is None:
            await self.app(scope, receive, send)
            return
        try:
            self.gate.check()
        except SensoriumError as error:
            await error_response(error, close=self.gate.draining)(scope, receive, send)
            return
        record = record_of(scope)
        self.gate.enter(record, task)
        try:
            await self.app(scope, receive, send)
        finally:
            self.gate.leave(record)
