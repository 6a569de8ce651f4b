"""Frames over a socket: cutting a byte stream into frames, and the gateway's end of a worker's socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import msgspec

from sensorium.errors import TooLarge
from sensorium.worker import frames

MAX_FRAME_BYTES = 1 << 30
_PREFIX = 4


class BrokenFrame(Exception):
    """What came in cannot be a frame; the stream is lost from here on."""


class FrameBuffer:
    """Collects bytes and gives back the frames that are complete."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any], max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._decoder = decoder
        self._max = max_frame_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Add bytes; return the frames they complete.

        Raises:
            BrokenFrame: a length is over the limit, or a body is not a frame.
        """
        self._buffer += data
        found: list[Any] = []
        start = 0
        with memoryview(self._buffer) as view:
            while len(view) - start >= _PREFIX:
                length = int.from_bytes(view[start : start + _PREFIX], "little")
                if length > self._max:
                    raise BrokenFrame(f"a frame of {length} bytes is announced; the limit is {self._max}")
                end = start + _PREFIX + length
                if len(view) < end:
                    break
                with view[start + _PREFIX : end] as body:
                    try:
                        found.append(self._decoder.decode(body))
                    except msgspec.MsgspecError as error:
                        raise BrokenFrame(f"a body of {length} bytes is not a frame") from error
                start = end
        del self._buffer[:start]
        return found


def pack(frame: frames.ToWorker | frames.FromWorker) -> bytes:
    """Return the frame as bytes.

    Raises:
        TooLarge: it is over the limit of a frame.
    """
    data = frames.encode(frame)
    if len(data) - _PREFIX > MAX_FRAME_BYTES:
        raise TooLarge(
            f"The request takes {len(data)} bytes with its media; the limit is {MAX_FRAME_BYTES}. Send less media.",
        )
    return data


class Channel(asyncio.Protocol):
    """The gateway's end of a worker's socket.

    Args:
        on_frame: called with each frame of the worker.
        on_lost: called once, when the socket is closed; the argument says why if the worker broke the rules.
    """

    def __init__(self, on_frame: Callable[[Any], None], on_lost: Callable[[str | None], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._buffer = FrameBuffer(frames.from_worker)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._broken: str | None = None

    @classmethod
    async def open(
        cls, sock: socket.socket, on_frame: Callable[[Any], None], on_lost: Callable[[str | None], None]
    ) -> Channel:
        """Take over a connected stream socket, of this machine or to another."""
        loop = asyncio.get_running_loop()
        connect = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
        _, channel = await connect(lambda: cls(on_frame, on_lost), sock=sock)
        return channel

    async def send(self, frame: frames.ToWorker) -> None:
        """Send a frame; wait while the worker is behind with reading.

        Raises:
            TooLarge: the frame is over the limit.
        """
        data = pack(frame)
        await self._writable.wait()
        self._write(data)

    def post(self, frame: frames.ToWorker) -> None:
        """Send a small frame without waiting. After the end it does nothing."""
        self._write(pack(frame))

    def close(self) -> None:
        """Close at once: the worker sees the end of its socket and ends."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            received = self._buffer.feed(data)
        except BrokenFrame as error:
            self._broken = str(error)
            self.close()
            return
        for frame in received:
            self._on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()  # whoever waits goes on, to find the request failed
        self._on_lost(self._broken)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
