"""uvicorn's HTTP connection, with limits it lacks: on request heads, and on clients that do not read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_DEADLINE_S = 10.0
MAX_HEAD_BYTES = 64 * 1024
STALL_S = 60.0  # how long a client may leave a full send buffer unread


class Connection(HttpToolsProtocol):
    """Closes a connection whose request head is late or endless, or whose client stopped reading its answer."""

    head_timer: asyncio.TimerHandle | None = None
    stall_timer: asyncio.TimerHandle | None = None
    head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Expect a head from now on."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that is not complete afterwards counts against the limit."""
        if self.head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)
        if self.head_timer is not None:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The request's head is larger than 64 KiB.")

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._stop_timer()
        self._stop_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The send buffer is full: from now on the client has STALL_S to read some of it."""
        super().pause_writing()
        self._stop_stall()
        self.stall_timer = self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It did."""
        self._stop_stall()
        super().resume_writing()

    def _stop_stall(self) -> None:
        if self.stall_timer is not None:
            self.stall_timer.cancel()
            self.stall_timer = None

    def _expect_head(self) -> None:
        self.head_bytes = 0
        self.head_timer = self.loop.call_later(HEAD_DEADLINE_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
