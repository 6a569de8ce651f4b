"""Decode pictures in a child process that can be killed: what hangs or crashes there fails one item only."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sensorium.errors import MediaError, SensoriumError
from sensorium.media.channel import LENGTH, PIXELS, READY, REASON, REFUSED, SIZE
from sensorium.media.check import Rejected, check_size
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem

_START_TIMEOUT_S = 60.0  # of the interpreter, on a machine that may be busy loading weights
_MAX_REASON_BYTES = 4096
_ROOT = str(Path(__file__).parents[2])
# sys.path[0] would be the working directory, where a file named like a module could run in the child's place: -P.
_START = f"import sys; sys.path.append({_ROOT!r}); from sensorium.media.child import main; main()"
# The child gets no secrets: only what an interpreter needs to start.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV")
_ENVIRONMENT_PREFIXES = ("PYTHON", "LD_", "DYLD_")


class _Lost(Exception):
    """The child ended, or has to be ended, while it worked on an item; the text says how."""


class Decoder:
    """Decodes pictures, `num_children` at a time. Safe to call from many threads.

    A child lives on between items. One that takes longer than `limits.decode_timeout_s`, crashes or runs out of
    memory is replaced; its item fails with a MediaError and no other item is touched.
    """

    def __init__(self, limits: MediaLimits, num_children: int = 1) -> None:
        self._limits = limits
        self._num_children = num_children
        self._idle: queue.LifoQueue[Future[_Child] | None] = queue.LifoQueue()
        # Linux ends a child with the *thread* that made it, so one thread makes them all and lives until close().
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoder-start")
        self._lock = threading.Lock()
        self._started = False
        self._closed = False

    def start(self) -> None:
        """Begin to start the children and return at once. Optional: the first item does it otherwise."""
        with self._lock:
            if not self._started and not self._closed:
                self._started = True
                for _ in range(self._num_children):
                    self._idle.put(self._starter.submit(_Child, self._limits))

    def decode_image(self, item: MediaItem) -> npt.NDArray[np.uint8]:
        """Return the picture as (height, width, 3) RGB, turned as its EXIF orientation says. Blocks.

        Raises:
            MediaError: it is not a picture we read, is over a limit, truncated, damaged, or killed its decoder.
        """
        try:
            if item.size is not None:
                return _from_raw(item.data, item.size, self._limits)
            return self._decode(item.data)
        except Rejected as rejected:
            raise MediaError(
                f"{item.where}: the image {rejected.reason}.", param=item.where, code=rejected.code
            ) from None

    def close(self) -> None:
        """End the children, each after the item it is at."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for _ in range(self._num_children if self._started else 0):
            slot = self._idle.get()
            if slot is not None and slot.exception() is None:
                slot.result().kill()
        self._idle.put(None)
        self._starter.shutdown()

    def _decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        self.start()
        slot = self._idle.get()
        if slot is None or self._closed:
            self._idle.put(slot)  # for the next one who waits, or for close()
            raise SensoriumError("the image decoder is closed")
        healthy = False
        try:
            child = slot.result()
            pixels = child.decode(data)
            healthy = True
            return pixels
        except Rejected as rejected:
            healthy = not isinstance(rejected.__cause__, _Lost)
            raise
        finally:
            self._give_back(slot, healthy)

    def _give_back(self, slot: Future[_Child], healthy: bool) -> None:
        if not healthy:
            if slot.exception() is None:
                slot.result().kill()
            with self._lock:
                if not self._closed:
                    slot = self._starter.submit(_Child, self._limits)
        self._idle.put(slot)


class _Child:
    """One running child and the socket to it."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._channel, theirs = socket.socketpair()
        arguments = (
            theirs.fileno(),
            os.getpid(),
            limits.decode_memory_bytes,
            math.ceil(limits.decode_timeout_s),
            limits.max_pixels,
            limits.max_aspect_ratio,
        )
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={name: value for name, value in os.environ.items() if _needed(name)},
                )
        except OSError:
            self._channel.close()
            raise SensoriumError("the image decoder did not start: the system could not run it") from None
        try:
            self._receive(len(READY), time.monotonic() + _START_TIMEOUT_S)
        except _Lost as lost:
            self.kill()
            raise SensoriumError(f"the image decoder did not start: it {lost}; the server's log says why") from None

    def decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Return the pixels of one file.

        Raises:
            Rejected: where its cause is a _Lost, the child has to be killed.
        """
        deadline = time.monotonic() + self._limits.decode_timeout_s
        try:
            self._send(LENGTH.pack(len(data)), deadline)
            self._send(data, deadline)
            return self._answer(deadline)
        except _Lost as lost:
            raise Rejected(f"could not be decoded: its decoder {lost}") from lost

    def kill(self) -> None:
        """End the process; what it was doing is lost."""
        self.process.kill()
        self.process.wait()
        self._channel.close()

    def _answer(self, deadline: float) -> npt.NDArray[np.uint8]:
        kind = self._receive(1, deadline)
        if kind == REFUSED:
            (num_bytes,) = REASON.unpack(self._receive(REASON.size, deadline))
            answer = self._receive(min(num_bytes, _MAX_REASON_BYTES), deadline)
            code, _, reason = answer.decode("utf-8", "replace").partition(":")
            raise Rejected(reason, code)
        height, width = SIZE.unpack(self._receive(SIZE.size, deadline))
        # A child that a picture has taken over must not make this process allocate what it likes.
        if kind != PIXELS or not 0 < height * width <= self._limits.max_pixels:
            raise _Lost("gave an answer that is none")
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        self._receive_into(pixels.reshape(-1).data, deadline)
        return pixels

    def _send(self, data: bytes, deadline: float) -> None:
        with self._lost_at(deadline):
            self._channel.sendall(data)

    def _receive(self, num_bytes: int, deadline: float) -> bytearray:
        buffer = bytearray(num_bytes)
        self._receive_into(memoryview(buffer), deadline)
        return buffer

    def _receive_into(self, view: memoryview, deadline: float) -> None:
        while view:
            with self._lost_at(deadline):
                count = self._channel.recv_into(view)
            if count == 0:
                raise _Lost(self._how_it_ended())
            view = view[count:]

    @contextlib.contextmanager
    def _lost_at(self, deadline: float) -> Iterator[None]:
        """Give the socket until `deadline`; whatever goes wrong with it means that the child is lost."""
        self._channel.settimeout(max(deadline - time.monotonic(), 1e-6))
        try:
            yield
        except TimeoutError:
            raise _Lost(f"took longer than {self._limits.decode_timeout_s:g} s") from None
        except OSError:
            raise _Lost(self._how_it_ended()) from None

    def _how_it_ended(self) -> str:
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "stopped answering"
        if status == -signal.SIGXCPU:
            return "used too much processor time"
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _from_raw(data: bytes, size: tuple[int, int], limits: MediaLimits) -> npt.NDArray[np.uint8]:
    height, width = size
    check_size(height, width, limits.max_pixels, limits.max_aspect_ratio)
    if len(data) != height * width * 3:
        raise Rejected(f"is {width}x{height} RGB, which is {height * width * 3} bytes, and {len(data)} came")
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3).copy()  # a copy: callers may write to it


def _needed(name: str) -> bool:
    return name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
