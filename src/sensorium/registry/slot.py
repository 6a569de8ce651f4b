"""One model of the pool: not loaded, loading, or loaded in a worker; loaded once however many ask."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from sensorium.errors import ConfigurationError, ModelUnavailable, SensoriumError
from sensorium.registry.circuit import Circuit
from sensorium.registry.outlook import outlook
from sensorium.settings import EngineSettings
from sensorium.types import ModelInfo, Outlook
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.launcher import Launcher

_RETRY_S = 1.0

log = logging.getLogger(__name__)

Progress = Callable[[str, str, float], None]  # model, phase, fraction in 0..1


class Slot:
    """One model and the worker that holds it.

    Attributes:
        leases: callers who use the model now, or wait for it.
        keep_loaded: start another worker when this one dies, without being asked.
        info: what the model told when it was loaded last.
    """

    def __init__(
        self,
        settings: EngineSettings,
        launcher: Launcher,
        on_progress: Progress | None = None,
        *,
        keep_loaded: bool = False,
    ) -> None:
        self.settings = settings
        self.name = settings.name or settings.model
        self.leases = 0
        self.keep_loaded = keep_loaded
        self.info: ModelInfo | None = None
        self.num_loads = 0
        self.num_deaths = 0
        self._launcher = launcher
        self._on_progress = on_progress
        self._handle: WorkerHandle | None = None
        self._loading: asyncio.Task[WorkerHandle] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._circuit = Circuit()
        self._phase = "starting"
        self._closing = False

    @property
    def handle(self) -> WorkerHandle | None:
        """The worker, if it can be asked."""
        return self._handle if self._handle is not None and self._handle.alive else None

    async def get(self) -> WorkerHandle:
        """Return the worker; start it first if there is none. Any number of callers share one start.

        Raises:
            ModelUnavailable: it cannot be loaded, or failed too often just now (with `retry_after_s`).
        """
        if self.handle is not None:
            return self.handle
        # Another caller's loading is never cancelled by ours.
        return await asyncio.shield(self._start())

    def outlook(self) -> Outlook:
        """What can be said of the model without loading it. Reads a file."""
        return outlook(self.settings)

    def state(self, stalled_after_s: float) -> tuple[bool, str]:
        """Return whether the model answers, and a sentence."""
        if self.handle is not None:
            silent_s = self.handle.silent_s()
            if silent_s > stalled_after_s:
                return False, f"{self.name!r} has had no heartbeat for {silent_s:.0f} s"
            return True, f"{self.name!r} is loaded"
        if self._loading is not None:
            return False, f"{self.name!r} is loading ({self._phase})"
        if self._circuit.reason:
            return False, f"{self.name!r} failed: {self._circuit.reason}"
        return False, f"{self.name!r} is not loaded"

    def watch(self, silent_after_s: float, stalled_after_s: float) -> None:
        """Kill a worker that has work and no longer does any."""
        handle = self.handle
        if handle is None or not handle.num_in_flight:
            return
        if handle.silent_s() > silent_after_s:
            handle.kill(f"stopped answering ({handle.silent_s():.0f} s without a heartbeat)")
        elif handle.stalled_s() > stalled_after_s:
            handle.kill(f"stopped answering (its engine has been in one step for {handle.stalled_s():.0f} s)")

    def counters(self) -> dict[str, float]:
        """Return the engine's counters and the slot's own."""
        handle = self.handle
        own = {
            "loaded": float(handle is not None),
            "in_flight": float(handle.num_in_flight if handle else 0),
            "worker_loads": float(self.num_loads),
            "worker_deaths": float(self.num_deaths),
        }
        return {**(handle.counters if handle else {}), **own}

    async def close(self) -> None:
        """End the worker, or its loading."""
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._handle is not None:
            await self._handle.close()

    def _start(self) -> asyncio.Task[WorkerHandle]:
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load(), name=f"load {self.name}")
            self._loading.add_done_callback(self._loaded)
        return self._loading

    async def _load(self) -> WorkerHandle:
        if self._closing:
            raise ModelUnavailable("The server is shutting down.")
        wait_s = self._circuit.wait_s(time.monotonic())
        if wait_s:
            raise ModelUnavailable(
                f"The model {self.name!r} failed several times in a row and is not started for {wait_s:.0f} s more. "
                f"Last reason: {self._circuit.reason}",
                retry_after_s=math.ceil(wait_s),
            )
        self._phase = "starting"
        self.num_loads += 1
        try:
            return await WorkerHandle.load(self._launcher, self.settings, self._progress)
        except SensoriumError as error:
            self._circuit.failed(time.monotonic(), error.message)
            log.info("model %r: loading failed: %s", self.name, error.message)
            raise ModelUnavailable(f"The model {self.name!r} could not be loaded: {error.message}") from error

    def _loaded(self, task: asyncio.Task[WorkerHandle]) -> None:
        self._loading = None
        if task.cancelled():
            return
        if task.exception() is not None:
            if self.keep_loaded and self.info is not None:  # it did load once, so it may again
                wait_s = max(_RETRY_S, self._circuit.wait_s(time.monotonic()))
                self._retry = asyncio.get_running_loop().call_later(wait_s, self._start)
            return
        handle = self._handle = task.result()
        self.info = handle.info
        info = handle.info
        how = (self.name, handle.child.pid, info.load_s, info.engine, info.family)
        log.info("model %r: loaded by process %d in %.2f s, engine %s, family %s", *how)
        handle.died.add_done_callback(lambda died: self._died(handle, died.result()))

    def _died(self, handle: WorkerHandle, how: str) -> None:
        if self._closing:
            return
        self.num_deaths += 1
        log.error("model %r: the worker (process %d) %s", self.name, handle.child.pid, how)
        if handle.num_finished:
            self._circuit.worked()
        else:
            self._circuit.failed(time.monotonic(), f"its worker {how}")
        if self._handle is handle:
            self._handle = None
        if self.keep_loaded:
            self._start()

    def _progress(self, phase: str, fraction: float) -> None:
        self._phase = f"{phase} {fraction:.0%}"
        if self._on_progress is not None:
            self._on_progress(self.name, phase, fraction)


def as_start_error(error: ModelUnavailable) -> SensoriumError:
    """Return what to show when loading fails at start: there the worker's own words are enough."""
    cause = error.__cause__
    return cause if isinstance(cause, ConfigurationError) else error
