"""Who wants to hear of changes, and what they have not heard yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from sensorium.registry.status import Change, ModelStatus


class Changes:
    """Tells any number of listeners which models changed. One that is slow hears of each model's latest state only.

    Args:
        look: returns the status of a name, or None once it is gone.
    """

    def __init__(self, look: Callable[[str], ModelStatus | None]) -> None:
        self._look = look
        self._listeners: set[_Listener] = set()

    def note(self, alias: str) -> None:
        """A model changed, came or went."""
        for listener in self._listeners:
            listener.changed[alias] = None
            listener.wake.set()

    async def listen(self) -> AsyncGenerator[Change, None]:
        """Yield changes from the first `anext` on."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            while True:
                await listener.wake.wait()
                listener.wake.clear()
                names, listener.changed = list(listener.changed), {}
                for alias in names:
                    yield Change(alias, self._look(alias))
        finally:
            self._listeners.discard(listener)


class _Listener:
    def __init__(self) -> None:
        self.changed: dict[str, None] = {}
        self.wake = asyncio.Event()
