"""One worker of a model, from the first byte downloaded until its memory is free again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from sensorium.errors import NoRoom
from sensorium.registry.appraisal import Appraisal, appraise, measure_key
from sensorium.registry.eviction import Occupant
from sensorium.registry.fit import advice
from sensorium.registry.measures import Forgetful, Measured, Measures
from sensorium.registry.memory import HOST
from sensorium.registry.prefetch import prefetch
from sensorium.registry.room import Claim, Room
from sensorium.registry.spec import ModelSpec
from sensorium.registry.status import ReplicaStatus, State
from sensorium.settings import EngineSettings, Needs
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.spawner import Spawner

_WAITING = "waiting for memory"
_LEAVE_S = 60.0  # how long idle workers may take to leave other machines


@dataclass
class Tools:
    """What the models of a pool share.

    Attributes:
        changed: told the name of a model that changed.
        on_progress: told about loading: model, phase, fraction.
        idle_ttl_s: for models that do not say themselves.
        drain_s: how long requests may take to end before a worker is ended with them.
        sleeps: idle workers give back the accelerator's memory before they are ended.
    """

    spawner: Spawner
    room: Room
    changed: Callable[[str], None]
    on_progress: Callable[[str, str, float], None] | None = None
    measures: Measures = field(default_factory=Forgetful)
    idle_ttl_s: float = -1.0
    drain_s: float = 30.0
    sleeps: bool = False

    def expected_s(self, settings: EngineSettings) -> float | None:
        """Return how long the model took to load on another occasion."""
        known = self.measures.measured(measure_key(settings))
        return known.load_s if known else None


class Running:
    """One worker: being loaded, loaded, or ending."""

    def __init__(self, number: int, spec: ModelSpec, tools: Tools, notify: Callable[[], None]) -> None:
        self.id = number
        self.task: asyncio.Task[WorkerHandle]
        self.handle: WorkerHandle | None = None
        self.phase = "starting"
        self.fraction = 0.0
        self.phases: dict[str, float] = {}
        self.load_s: float | None = None
        self.needed_bytes: int | None = None
        self.ready = self.ending = False
        self._spec, self._tools, self._notify = spec, tools, notify
        self._claim: Claim | None = None
        self._appraisal: Appraisal | None = None
        self._began = self._phase_began = time.monotonic()
        self._measured = False

    @property
    def alive(self) -> bool:
        """Whether requests may be sent to it."""
        return self.handle is not None and self.handle.alive

    @property
    def loading(self) -> bool:
        """Whether it is on its way to be ready."""
        return not self.ready and not self.ending

    @property
    def elapsed_s(self) -> float:
        """Seconds since loading began."""
        return time.monotonic() - self._began

    async def load(self, standing: Callable[[], Occupant], leave: Callable[[], None], *, forced: bool) -> WorkerHandle:
        """Download what is not here, set memory aside, start a worker and wait until it is ready.

        Raises:
            SensoriumError: one of these failed; nothing is left behind.
        """
        settings, tools = self._spec.settings, self._tools
        try:
            if not tools.spawner.elsewhere and settings.engine != "remote":
                await prefetch(settings, self._progress)
            self._progress(_WAITING, 0.0)
            await self._set_aside(standing, leave, forced)
            if not forced:
                settings = self._granted(settings)
            self._progress("starting", 0.0)
            needs = self._spec.needs
            if needs.memory_bytes is None and self._appraisal is not None and self._appraisal.estimate.known:
                needs = msgspec.structs.replace(needs, memory_bytes=self._appraisal.estimate.least)
            self.handle = await self._start(settings, needs)
        except BaseException:
            self.release()
            raise
        self._progress("ready", 1.0)
        self.load_s = self.elapsed_s
        return self.handle

    async def end(self) -> None:
        """End the worker, or its loading."""
        self.ending = True
        if not self.task.done():
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        if self.handle is not None:
            await self.handle.close()

    async def doze(self) -> None:
        """Let the worker give back the accelerator's memory.

        Raises:
            SensoriumError: it cannot.
        """
        assert self.handle is not None
        await self.handle.sleep()
        if self._claim is not None and self._appraisal is not None:
            kept = self._claim.holds.get(HOST, 0) + self._appraisal.estimate.weights
            if self._claim.holds:
                self._tools.room.correct(self._claim, {HOST: kept})

    async def wake(self, standing: Callable[[], Occupant], leave: Callable[[], None]) -> None:
        """Take the accelerator's memory again.

        Raises:
            SensoriumError: there is none, or the worker failed.
        """
        assert self.handle is not None
        self.release()
        await self._set_aside(standing, leave, forced=False)
        await self.handle.wake()

    def release(self) -> None:
        """Give back the memory that was set aside."""
        if self._claim is not None:
            self._tools.room.release(self._claim)
            self._claim = None

    def correct(self) -> None:
        """Set aside what the worker was measured to take, and remember it for the next time."""
        handle, claim, found = self.handle, self._claim, self._appraisal
        if handle is None or claim is None or found is None or self.ending or "host_bytes" not in handle.counters:
            return
        host, device = int(handle.counters["host_bytes"]), int(handle.counters.get("device_bytes", 0))
        if not found.device:
            host = max(host, handle.info.weights_bytes)  # weights that are used where the file is mapped do not count
        cache = handle.info.kv_cache_tokens * found.estimate.token
        if not self._measured:
            self._measured = True
            measured = Measured(host, max(0, device - cache), self.load_s or 0.0)
            self._tools.measures.remember(measure_key(self._spec.settings), measured)
            if not claim.holds:
                return  # it is on another machine, which looks itself
            # Pages of the cache count when they are first written; they are promised from now on.
            holds = {HOST: host + (0 if found.device else cache)}
            if found.device:
                holds[found.device] = max(device, claim.holds.get(found.device, 0))
            self._tools.room.correct(claim, holds)
        elif claim.holds and host > claim.holds[HOST]:
            self._tools.room.correct(claim, {**claim.holds, HOST: host})

    def status(self, state: State, in_flight: int) -> ReplicaStatus:
        """Return what can be seen of the worker from outside."""
        handle = self.handle
        counters = handle.counters if handle else {}
        return ReplicaStatus(
            id=self.id,
            state=state,
            pid=handle.child.pid if handle else None,
            node=handle.child.node if handle else "",
            phase=self.phase if self.loading else "",
            fraction=self.fraction if self.loading else 0.0,
            in_flight=in_flight,
            host_bytes=int(counters.get("host_bytes", 0)),
            device_bytes=int(counters.get("device_bytes", 0)),
        )

    async def _set_aside(self, standing: Callable[[], Occupant], leave: Callable[[], None], forced: bool) -> None:
        tools = self._tools
        found = self._appraisal = await appraise(self._spec.settings, tools.room, tools.measures)
        if found.estimate.known:
            self.needed_bytes = found.least[found.pool]
        if tools.spawner.elsewhere:  # other machines count for themselves
            self._claim = tools.room.stand(self._spec.alias, standing, leave)
            return
        try:
            self._claim = await tools.room.take(
                self._spec.alias, found.least, found.most, standing, leave, forced=forced
            )
        except NoRoom as error:
            lower = advice(found.estimate, tools.room.budgets.get(found.pool, 0) - found.extra)
            raise NoRoom(f"{error.message} {lower}".rstrip(), retry_after_s=error.retry_after_s) from None

    async def _start(self, settings: EngineSettings, needs: Needs) -> WorkerHandle:
        """Start the worker. Where other machines have no room for it now, idle workers leave them first."""
        deadline = time.monotonic() + _LEAVE_S
        while True:
            try:
                return await WorkerHandle.load(self._tools.spawner, settings, self._progress, needs)
            except NoRoom as error:
                if error.code != NoRoom.default_code or time.monotonic() > deadline:
                    raise  # it fits nowhere, whoever leaves
                if not (self._tools.spawner.elsewhere and await self._tools.room.make_one_leave()):
                    raise
            self._progress(_WAITING, 0.0)

    def _granted(self, settings: EngineSettings) -> EngineSettings:
        """Return the settings with the KV cache and the device that were set aside."""
        found, claim = self._appraisal, self._claim
        if found is None or not found.estimate.known or settings.engine not in ("auto", "native"):
            return settings
        if claim is None or not claim.holds:
            return settings  # another machine knows itself what it has
        changes: dict[str, object] = {}
        if settings.kv_cache_bytes is None and found.estimate.token:
            changes["kv_cache_bytes"] = claim.holds[found.pool] - found.extra - found.estimate.fixed
        if found.device and settings.device in ("auto", "cuda"):
            changes["device"] = found.device
        return msgspec.structs.replace(settings, **changes)

    def _progress(self, phase: str, fraction: float) -> None:
        if phase != self.phase:
            now = time.monotonic()
            took_s = now - self._phase_began
            if took_s > 0.0005:
                self.phases[self.phase] = self.phases.get(self.phase, 0.0) + took_s
            self._phase_began = now
        self.phase, self.fraction = phase, fraction
        if self._tools.on_progress is not None and phase not in (_WAITING, "ready"):
            self._tools.on_progress(self._spec.alias, phase, fraction)
        self._notify()
