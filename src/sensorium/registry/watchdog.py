"""Once a second: are the workers alive, and which of them has nothing to do any more?"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from sensorium.registry.slot import Slot
from sensorium.worker import prctl

_WATCH_S = 1.0

log = logging.getLogger(__name__)


class Watchdog:
    """Looks at every model in turn. `silent_after_s` and `stalled_after_s`: see `Pool`."""

    def __init__(self, slots: Callable[[], Sequence[Slot]], silent_after_s: float, stalled_after_s: float) -> None:
        self._slots = slots
        self._limits = (silent_after_s, stalled_after_s)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running loop; once is enough."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="watchdog")

    def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        last = time.monotonic()
        orphans = prctl.Orphans()
        while True:
            await asyncio.sleep(_WATCH_S)
            orphans.reap()
            now = time.monotonic()
            # After a pause of our own (a laptop asleep, a stopped gateway) beats wait in the socket: read them first.
            if now - last < 2 * _WATCH_S + 1.0:
                for slot in self._slots():
                    try:
                        slot.watch(*self._limits)
                        slot.tick(now)
                    except Exception:  # of one model; the others are to be looked after all the same
                        log.exception("model %r could not be looked after", slot.name)
            last = now
