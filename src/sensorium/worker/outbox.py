"""The worker's way out: frames to the gateway, from any thread, never waiting for it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque

from sensorium.types import Event
from sensorium.worker import frames
from sensorium.worker.channel import pack


class Outbox:
    """Sends a frame at once if the socket takes it, else leaves it to a thread of its own.

    While the gateway is behind, Events frames that wait are merged, so that it catches up with few large ones.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._changed = threading.Condition()
        self._waiting: deque[frames.FromWorker] = deque()
        self._rest = b""  # of a frame the socket took in part
        self._closed = False
        self._thread = threading.Thread(target=self._drain, name="outbox", daemon=True)
        self._thread.start()

    def put(self, frame: frames.FromWorker) -> None:
        """Send a frame. After `close`, or when the gateway is gone, it does nothing."""
        with self._changed:
            if self._closed:
                return
            if self._waiting or self._rest:
                self._append(frame)
                return
            data = pack(frame)
            try:
                sent = self._sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._closed = True
                return
            if sent < len(data):
                self._rest = data[sent:]
                self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Wait until all is sent, at most `timeout_s`; then take nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not (self._waiting or self._rest), timeout_s)
            self._closed = True
            self._changed.notify_all()

    def _append(self, frame: frames.FromWorker) -> None:
        last = self._waiting[-1] if self._waiting else None
        if isinstance(frame, frames.Events) and isinstance(last, frames.Events):
            merged: list[Event] = last.events
            merged.extend(frame.events)
        elif isinstance(frame, frames.Events):
            self._waiting.append(frames.Events(list(frame.events)))
        else:
            self._waiting.append(frame)

    def _drain(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._rest or self._waiting)
                if self._closed:
                    return
                # `_rest` stays set while it is being sent: that keeps `put` from overtaking it.
                self._rest = self._rest or pack(self._waiting.popleft())
            with contextlib.suppress(OSError):
                self._sock.sendall(self._rest)
                with self._changed:
                    self._rest = b""
                    self._changed.notify_all()
                continue
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            return
