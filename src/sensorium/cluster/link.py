"""A control connection, from either end: messages, a sign of life each second, and noticing that the other is gone."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec

from sensorium.cluster import messages
from sensorium.worker.channel import BrokenFrame, FrameBuffer

BEAT_S = 1.0
SILENT_AFTER_S = 5.0
_MOST_UNREAD_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Link(asyncio.Protocol):
    """One end of a control connection.

    Args:
        decoder: of what the other side says.
        on_message: called with each message.
        beat: makes the sign of life.
        silent_after_s: without a message for this long the other side counts as lost.

    Attributes:
        lost: done when the connection has ended; the result says how: "was not heard of for 5 s".
    """

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[Any],
        on_message: Callable[[Any], None],
        beat: Callable[[], messages.ToNode | messages.FromNode],
        silent_after_s: float = SILENT_AFTER_S,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._on_message = on_message
        self._beat = beat
        self._silent_after_s = silent_after_s
        self._buffer = FrameBuffer(decoder, messages.MAX_MESSAGE_BYTES)
        self._transport: asyncio.Transport | None = None
        self._heard = time.monotonic()
        self._beating: asyncio.Task[None] | None = None

    async def open(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, sock=sock)
        self._beating = loop.create_task(self._keep_beating(), name="control connection")

    def send(self, message: messages.ToNode | messages.FromNode) -> None:
        """Send without waiting. After the end it does nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(messages.pack(message))
            if self._transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
                self.close("does not read what it is sent")

    def close(self, why: str = "was closed") -> None:
        """End the connection at once."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        try:
            received = self._buffer.feed(data)
        except BrokenFrame as error:
            self.close(f"sent something that is not a message ({error})")
            return
        for message in received:
            self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if isinstance(exc, TimeoutError):
            self._end("no longer answers")
        self._end("closed the connection" if exc is None else "broke the connection off")

    def _end(self, how: str) -> None:
        if self._beating is not None:
            self._beating.cancel()
        if not self.lost.done():
            self.lost.set_result(how)

    async def _keep_beating(self) -> None:
        last = time.monotonic()
        while True:
            self.send(self._beat())
            await asyncio.sleep(BEAT_S)
            now = time.monotonic()
            if now - last > BEAT_S + 1.0:
                # The pause was ours (a laptop asleep, a stopped process): what came meanwhile has yet to be read.
                self._heard = max(self._heard, now - BEAT_S)
            elif now - self._heard > self._silent_after_s:
                self.close(f"was not heard of for {now - self._heard:.0f} s")
            last = now
