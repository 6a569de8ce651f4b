"""uvicorn's HTTP connection, with the deadline and the size limit for request heads that it lacks."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_DEADLINE_S = 10.0
MAX_HEAD_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """Closes a connection whose request head is late or endless."""

    head_timer: asyncio.TimerHandle | None = None
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
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self.head_bytes = 0
        self.head_timer = self.loop.call_later(HEAD_DEADLINE_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
