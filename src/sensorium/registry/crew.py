"""The workers of one model: does what its lifecycle says, and tells it what came of that."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine

from sensorium.errors import ModelUnavailable, NoRoom, SensoriumError
from sensorium.registry.circuit import Circuit
from sensorium.registry.eviction import Occupant
from sensorium.registry.lifecycle import Action, Doze, Lifecycle, Start, Stop, Wake
from sensorium.registry.loading import Running, Tools
from sensorium.registry.spec import ModelSpec
from sensorium.types import ModelInfo
from sensorium.worker.handle import WorkerHandle

log = logging.getLogger(__name__)


class Crew:
    """Belongs to one event loop.

    Args:
        spec: how the model is loaded.
        lifecycle: decides; nothing else starts or ends a worker.
        forced: memory is set aside whatever the budget says.
        changed: called after every change.

    Attributes:
        running: workers by number, those that are being loaded or end included.
        info: what the model told when it was loaded last.
        last: the worker that was loaded last, and `loaded_at` when, in seconds since the epoch.
        failures: how often loading failed, and `error` how it did last.
    """

    def __init__(
        self, spec: ModelSpec, tools: Tools, lifecycle: Lifecycle, changed: Callable[[], None], *, forced: bool
    ) -> None:
        self.name = spec.alias
        self.running: dict[int, Running] = {}
        self.circuit = Circuit()
        self.info: ModelInfo | None = None
        self.last: Running | None = None
        self.loaded_at: float | None = None
        self.failures = 0
        self.error: SensoriumError | None = None
        self.num_loads = 0
        self.num_deaths = 0
        self.lifecycle = lifecycle
        self._spec, self._tools, self._forced, self._notify = spec, tools, forced, changed
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = False

    async def close(self) -> None:
        """End every worker now; none is started again."""
        self._closing = True
        self.act(self.lifecycle.remove())
        self.act(self.lifecycle.hurry())
        self._notify()
        while self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)

    def loading(self) -> Running | None:
        """Return a worker that is being loaded."""
        return next((running for running in self.running.values() if running.loading), None)

    def act(self, actions: list[Action]) -> None:
        """Do what the lifecycle says."""
        for action in actions:
            match action:
                case Start(number):
                    self._start(number)
                case Stop(number):
                    self._later(self._end(self.running[number]))
                case Doze(number):
                    self._later(self._doze(self.running[number]))
                case Wake(number):
                    self._later(self._wake(self.running[number]))
        if actions:
            self._notify()

    def _start(self, number: int) -> None:
        self.num_loads += 1
        running = Running(number, self._spec, self._tools, self._notify)
        self.running[number] = running
        running.task = asyncio.get_running_loop().create_task(
            running.load(lambda: self._standing(running), lambda: self._leave(running), forced=self._forced),
            name=f"load {self.name}",
        )
        running.task.add_done_callback(lambda task: self._loaded(running, task))

    def _loaded(self, running: Running, task: asyncio.Task[WorkerHandle]) -> None:
        if task.cancelled():
            return  # by `_end`, which goes on
        now = time.monotonic()
        error = task.exception()
        if error is not None:
            self._load_failed(running, error, now)
            return
        handle = task.result()
        running.ready = True
        self.info = handle.info
        self.last = running
        self.loaded_at = time.time()
        self.circuit.reason = ""
        self.lifecycle.loaded(running.id, now)
        where = (self.name, handle.child.pid, handle.child.node and f" on {handle.child.node}")
        log.info(
            "model %r: loaded by process %d%s in %.2f s, engine %s, family %s",
            *where,
            handle.info.load_s,
            handle.info.engine,
            handle.info.family,
        )
        handle.died.add_done_callback(lambda died: self._died(running, died.result()))
        if handle.child.leaving is not None:
            handle.child.leaving.add_done_callback(lambda _: self._leave(running))
        self._notify()

    def _load_failed(self, running: Running, error: BaseException, now: float) -> None:
        message = error.message if isinstance(error, SensoriumError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, SensoriumError):
            log.error("model %r: loading failed", self.name, exc_info=error)
        if isinstance(error, NoRoom):
            self.circuit.no_room(now, message)
        else:
            self.circuit.failed(now, message)
        log.info("model %r: loading failed: %s", self.name, message)
        self.failures += 1
        if isinstance(error, ModelUnavailable) and type(error) is not ModelUnavailable:
            self.error = error  # NoRoom says what to do about it
        else:
            self.error = ModelUnavailable(f"The model {self.name!r} could not be loaded: {message}")
            self.error.__cause__ = error
        self._forget(running)

    def _died(self, running: Running, how: str) -> None:
        if self._closing or running.ending:
            return
        self.num_deaths += 1
        assert running.handle is not None
        log.error("model %r: the worker (process %d) %s", self.name, running.handle.child.pid, how)
        now = time.monotonic()
        if running.handle.num_finished:
            self.circuit.worked()
        else:
            self.circuit.failed(now, f"its worker {how}")
        self._forget(running)
        if self.lifecycle.min_replicas:
            self.act(self.lifecycle.tick(now, 0, may_start=not self.circuit.wait_s(now)))

    async def _end(self, running: Running) -> None:
        if running.handle is not None and running.handle.num_finished:
            self.circuit.worked()
        await running.end()
        self._forget(running)

    async def _doze(self, running: Running) -> None:
        try:
            await running.doze()
        except SensoriumError as error:
            if running.alive:  # otherwise it was ended, which says nothing of the next one
                log.info("model %r does not sleep: %s", self.name, error.message)
                self.lifecycle.sleeps = False
            self.lifecycle.awake(running.id, time.monotonic())
        else:
            self.lifecycle.asleep(running.id, time.monotonic())
        self._notify()

    async def _wake(self, running: Running) -> None:
        try:
            await running.wake(lambda: self._standing(running), lambda: self._leave(running))
        except Exception as error:  # whatever it is: as long as it is about to wake, requests wait for it
            expected = isinstance(error, SensoriumError)
            log.warning("model %r did not wake (%s); it is loaded anew", self.name, error, exc_info=not expected)
            await self._end(running)
        else:
            self.lifecycle.awake(running.id, time.monotonic())
        self._notify()

    def _forget(self, running: Running) -> None:
        running.release()
        self.lifecycle.gone(running.id)
        self.running.pop(running.id, None)
        self._notify()

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _standing(self, running: Running) -> Occupant:
        replica = self.lifecycle.replicas.get(running.id)
        now = time.monotonic()
        if replica is None:
            return Occupant(None, {}, leaving=True)
        loading = replica.state in ("loading", "waking", "dozing")
        return Occupant(
            None,
            {},
            in_flight=replica.in_flight + loading,
            used_s=now - replica.used_at,
            ready_s=0.0 if loading else now - replica.ready_at,
            pinned=self._spec.pinned or self.lifecycle.min_replicas > 0,
            leaving=replica.state in ("draining", "stopping"),
        )

    def _leave(self, running: Running) -> None:
        self.act(self.lifecycle.drain(running.id))
