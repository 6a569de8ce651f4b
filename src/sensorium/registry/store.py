"""The catalog, off the event loop: one thread that has the database open, opened when it is first needed."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sensorium.errors import RegistryUnavailable, SensoriumError
from sensorium.registry.kept import Snapshot
from sensorium.registry.measures import Measured
from sensorium.registry.spec import ModelSpec

if TYPE_CHECKING:
    from sensorium.registry.catalog import Catalog, Put

T = TypeVar("T")

_PATIENCE_S = 20.0  # the database's own timeouts are shorter; this is for one that does not even break off

log = logging.getLogger(__name__)


class Store:
    """A catalog whose methods are awaited. It is also where measured sizes are remembered (`Measures`).

    Args:
        location: a file, or a URL of SQLite or PostgreSQL.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._sizes: dict[str, Measured] = {}
        self._catalog: Catalog | None = None
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[Catalog], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def is_new(self) -> bool:
        """Whether there is nothing in it yet, as far as a glance tells: then it need not be opened."""
        return "://" not in self.location and not Path(self.location).expanduser().exists()

    async def revision(self) -> int:
        """Return the number of the last change."""
        return await self._run(lambda catalog: catalog.revision())

    async def snapshot(self) -> Snapshot:
        """Return everything that is kept."""
        return await self._run(lambda catalog: catalog.snapshot())

    async def put(self, spec: ModelSpec, source: str, replace: bool, over: str | None = None) -> Put:
        """Keep a model; see `Catalog.put`."""
        return await self._run(lambda catalog: catalog.put(spec, source, replace, over))

    async def remove(self, alias: str) -> int:
        """Forget a model; see `Catalog.remove`."""
        return await self._run(lambda catalog: catalog.remove(alias))

    async def apply(self, source: str, specs: Sequence[ModelSpec]) -> Snapshot:
        """Make what came from a file equal to it; see `Catalog.apply`."""
        return await self._run(lambda catalog: catalog.apply(source, specs))

    async def read_measurements(self) -> None:
        """Look up what was measured before this process began."""
        self._sizes = {**await self._run(lambda catalog: catalog.measurements()), **self._sizes}

    def measured(self, key: str) -> Measured | None:
        """Return what was measured for `key`."""
        return self._sizes.get(key)

    def remember(self, key: str, measured: Measured) -> None:
        """Note a measurement; it is written when the thread comes to it, and lost if that fails."""
        self._sizes[key] = measured
        done = self._submit(lambda catalog: catalog.remember(key, measured))
        done.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Let the thread finish what it was given, for a moment, and end it."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join, 2.0)
            self._thread = None

    async def _run(self, job: Callable[[Catalog], T]) -> T:
        future = asyncio.wrap_future(self._submit(job))
        try:
            async with asyncio.timeout(_PATIENCE_S):  # not wait_for, which in Python 3.11 may swallow a cancellation
                return await asyncio.shield(future)
        except TimeoutError:
            raise RegistryUnavailable(
                f"The registry's database has not answered for {_PATIENCE_S:.0f} s. If it took the change before it "
                "went silent, the change shows as soon as it answers again.",
                code="registry_unreachable",
                retry_after_s=10,
            ) from None

    def _submit(self, job: Callable[[Catalog], T]) -> Future[T]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="registry", daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._jobs.put((future, job))
        return future

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            future, job = item
            try:
                future.set_result(job(self._opened()))
            except BaseException as error:
                future.set_exception(error)
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    def _opened(self) -> Catalog:
        if self._catalog is None:
            from sensorium.registry.catalog import Catalog  # here, because it imports SQLAlchemy: 0.2 s and 11 MB

            self._catalog = Catalog(self.location)
        return self._catalog


def _log_failure(done: Future[None]) -> None:
    error = done.exception()
    if isinstance(error, SensoriumError):
        log.warning("a measured size was not kept: %s", error.message)
    elif error is not None:
        log.error("a measured size was not kept", exc_info=error)
