"""The decoding children of one kind: started when first needed, lent to one item at a time, replaced when lost."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sensorium.errors import SensoriumError
from sensorium.media.check import Rejected
from sensorium.media.child_process import Answer, ChildProcess, Lost
from sensorium.settings import MediaLimits
from sensorium.types import Modality


class ChildPool:
    """Safe to use from many threads.

    Args:
        starter: a single thread that outlives the children: Linux ends a child with the *thread* that made it.
    """

    def __init__(self, kind: Modality, limits: MediaLimits, num_children: int, starter: ThreadPoolExecutor) -> None:
        self._kind, self._limits, self._num_children, self._starter = kind, limits, num_children, starter
        self._idle: queue.LifoQueue[Future[ChildProcess] | None] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._started = False
        self._closed = False

    def start(self) -> None:
        """Begin to start the children and return at once; nothing where that was done, or the pool is closed."""
        with self._lock:
            if not self._started and not self._closed:
                self._started = True
                for _ in range(self._num_children):
                    self._idle.put(self._starter.submit(ChildProcess, self._kind, self._limits))

    def ask(
        self, wanted: dict[str, Any], files: Sequence[bytes], read: Callable[[ChildProcess, bytes], Answer]
    ) -> Answer:
        """Have a child do one thing. Blocks while all of them are busy.

        Raises:
            Rejected: the item is not accepted, or its child was lost over it.
            SensoriumError: no child could be started, or the pool is closed.
        """
        self.start()
        slot = self._idle.get()
        if slot is None or self._closed:
            self._idle.put(slot)  # for the next one who waits, or for close()
            raise SensoriumError(f"the {self._kind} decoder is closed")
        healthy = False
        try:
            answer = slot.result().ask(wanted, files, read)
            healthy = True
            return answer
        except Rejected as rejected:
            healthy = not isinstance(rejected.__cause__, Lost)
            raise
        finally:
            self._give_back(slot, healthy)

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

    def _give_back(self, slot: Future[ChildProcess], healthy: bool) -> None:
        if not healthy:
            if slot.exception() is None:
                slot.result().kill()
            with self._lock:
                if not self._closed:
                    slot = self._starter.submit(ChildProcess, self._kind, self._limits)
        self._idle.put(slot)
