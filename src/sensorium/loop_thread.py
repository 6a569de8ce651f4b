"""The event loop of an LLM, in a thread of its own: its callers have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from sensorium.errors import SensoriumError

_CLOSE_S = 10.0
CLOSED = "The LLM was closed."

T = TypeVar("T")


class LoopThread:
    """Runs coroutines until `close`. Its methods may be called from any thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; should the caller be interrupted, it is cancelled.

        Raises:
            SensoriumError: `close` was called meanwhile; or what `work` raises.
        """
        future = self.start(work)
        try:
            return future.result()
        except CancelledError:
            raise SensoriumError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End what is under way, so that nobody waits for it for ever, and the thread."""
        ending = self.start(_end_tasks())
        called_from_it = threading.current_thread() is self._thread
        try:
            if not called_from_it:
                ending.result(_CLOSE_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            if not called_from_it:
                self._thread.join(_CLOSE_S)
                self._loop.close()


async def _end_tasks() -> None:
    under_way = asyncio.all_tasks() - {asyncio.current_task()}
    for task in under_way:
        task.cancel()
    if under_way:
        await asyncio.wait(under_way, timeout=_CLOSE_S / 2)
