"""The pool of one model in this process, from which `way.stream` takes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sensorium.errors import ModelNotFound
from sensorium.types import Adapter
from sensorium.worker.local import LocalHandle


class OneModel:
    """A pool that has nothing to load or to unload."""

    def __init__(self, handle: LocalHandle) -> None:
        self._handle = handle

    def adapter(self, name: str) -> Adapter | None:
        """None: requests bring their adapters themselves."""
        return None

    @asynccontextmanager
    async def lease(self, name: str, *, wait: bool = True, near: str = "") -> AsyncGenerator[LocalHandle, None]:
        if name != self._handle.info.name:
            raise ModelNotFound(f"The model {name!r} does not exist.", param="model")
        yield self._handle
