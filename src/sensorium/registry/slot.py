"""One model of the pool: its workers, and the requests that use them or wait for one."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from sensorium.errors import ConfigurationError, ModelLoading, ModelNotFound, ModelUnavailable, SensoriumError
from sensorium.registry.appraisal import appraise, fit
from sensorium.registry.autoscale import Autoscale, Load
from sensorium.registry.crew import Crew
from sensorium.registry.lifecycle import Lifecycle
from sensorium.registry.loading import Running, Tools
from sensorium.registry.outlook import outlook
from sensorium.registry.routing import choose
from sensorium.registry.spec import FOREVER, ModelSpec
from sensorium.registry.status import Fit, ModelStatus, ReplicaStatus, State
from sensorium.types import ModelInfo, Outlook
from sensorium.worker.handle import WorkerHandle

_GUESS_S = 5  # to wait before asking again, where nothing is known about how long loading takes
SHUTTING_DOWN = "The server is shutting down."


class Slot:
    """One model and the workers that hold it. Belongs to one event loop.

    Args:
        spec: how it is loaded, and how long it stays.
        tools: what it shares with the other models of the pool.
        named: the operator named it when the server was started: it is loaded whatever the budget says.

    Attributes:
        leases: callers who use the model now, or wait for it.
    """

    def __init__(self, spec: ModelSpec, tools: Tools, *, named: bool = False) -> None:
        self.spec = spec
        self.settings = spec.settings
        self.name = spec.alias
        self.leases = 0
        idle_ttl_s = tools.idle_ttl_s if spec.idle_ttl_s is None else spec.idle_ttl_s
        self.lifecycle = Lifecycle(
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            idle_ttl_s=FOREVER if idle_ttl_s < 0 else idle_ttl_s,
            pinned=spec.pinned,
            sleeps=tools.sleeps,
        )
        self._tools = tools
        self._crew = Crew(spec, tools, self.lifecycle, self._notify, forced=named)
        self._autoscale = Autoscale()
        self._changed = asyncio.Event()
        self._closing = False
        self._used_at: float | None = None

    @property
    def info(self) -> ModelInfo | None:
        """What the model told when it was loaded last."""
        return self._crew.info

    @property
    def keep_loaded(self) -> bool:
        """Whether a worker runs even if nobody asks."""
        return self.lifecycle.min_replicas > 0 and not self.lifecycle.resting

    @keep_loaded.setter
    def keep_loaded(self, keep: bool) -> None:
        self.lifecycle.min_replicas = max(self.spec.min_replicas, int(keep))

    @property
    def handles(self) -> list[WorkerHandle]:
        """The workers that can be asked."""
        serving = [self._crew.running[replica.id].handle for replica in self.lifecycle.serving()]
        return [handle for handle in serving if handle is not None and handle.alive]

    @property
    def handle(self) -> WorkerHandle | None:
        """One of them."""
        return next(iter(self.handles), None)

    @asynccontextmanager
    async def use(self, *, wait: bool = True, near: str = "") -> AsyncGenerator[WorkerHandle, None]:
        """Hold a worker for one request; one is started if there is none. See `Lender.lease`."""
        self.leases += 1
        try:
            running = await self._take(wait, near)
            try:
                assert running.handle is not None
                yield running.handle
            finally:
                self._used_at = time.time()
                self._crew.act(self.lifecycle.give(running.id, time.monotonic()))
                self._tools.room.changed()
        finally:
            self.leases -= 1

    async def load(self) -> None:
        """Wait until a worker is ready.

        Raises:
            ModelUnavailable: it cannot be loaded.
        """
        async with self.use():
            pass

    async def unload(self) -> None:
        """Let requests end and give the memory back; after the grace they are ended."""
        leaving = set(self._crew.running)
        self._crew.act(self.lifecycle.rest())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._tools.drain_s):
                await self._until(lambda: not leaving & self._crew.running.keys())
                return
        self._crew.act(self.lifecycle.hurry())
        await self._until(lambda: not leaving & self._crew.running.keys())

    async def remove(self) -> None:
        """Start nothing any more; the rest as `unload`."""
        self._crew.act(self.lifecycle.remove())
        await self.unload()

    async def close(self) -> None:
        """End every worker now."""
        self._closing = True
        await self._crew.close()

    def tick(self, now: float) -> None:
        """Look after idle workers, missing ones, and how many the load calls for; about once a second."""
        if self._closing or self.lifecycle.removed:
            return
        serving = self.lifecycle.serving()
        in_flight = sum(replica.in_flight for replica in serving)
        handles = self.handles
        batched = sum(handle.counters.get("requests_waiting", 0.0) for handle in handles)
        ttft_s = max((handle.ttft_s for handle in handles), default=0.0)
        active = self.lifecycle.num_active()
        load = Load(active, in_flight, self.leases - in_flight + int(batched), ttft_s)
        wanted = self._autoscale.wanted(now, load)
        may_start = not self._crew.circuit.wait_s(now) and now >= self._crew.circuit.retry_at
        self._crew.act(self.lifecycle.tick(now, wanted, may_start))
        if wanted < active:
            self._crew.act(self.lifecycle.scale_down(wanted))
        for running in self._crew.running.values():
            running.correct()

    def watch(self, silent_after_s: float, stalled_after_s: float) -> None:
        """Kill workers that have work and no longer do any."""
        for handle in self.handles:
            if not handle.num_in_flight:
                continue
            if handle.silent_s() > silent_after_s:
                handle.kill(f"stopped answering ({handle.silent_s():.0f} s without a heartbeat)")
            elif handle.stalled_s() > stalled_after_s:
                handle.kill(f"stopped answering (its engine has been in one step for {handle.stalled_s():.0f} s)")

    def outlook(self) -> Outlook:
        """What can be said of the model without loading it. Reads a file."""
        return outlook(self.settings)

    def state(self, stalled_after_s: float) -> tuple[bool, str]:
        """Return whether the model answers, and a sentence."""
        if self.handle is not None:
            silent_s = min(handle.silent_s() for handle in self.handles)
            if silent_s > stalled_after_s:
                return False, f"{self.name!r} has had no heartbeat for {silent_s:.0f} s"
            return True, f"{self.name!r} is loaded"
        loading = self._crew.loading()
        if loading is not None:
            return False, f"{self.name!r} is loading ({loading.phase} {loading.fraction:.0%})"
        if self._crew.circuit.reason:
            return False, f"{self.name!r} failed: {self._crew.circuit.reason}"
        return False, f"{self.name!r} is not loaded"

    def status(self) -> ModelStatus:
        """Return what can be seen of the model from outside."""
        now = time.monotonic()
        replicas = tuple(self._replica(running) for running in self._crew.running.values())
        loading, last = self._crew.loading(), self._crew.last
        in_flight = sum(replica.in_flight for replica in replicas)
        idle_ttl_s = None if self.keep_loaded or self.spec.pinned else self.lifecycle.idle_ttl_s
        return ModelStatus(
            alias=self.name,
            state=self._state(),
            model=self.settings.model,
            engine=self.info.engine if self.info else self.settings.engine,
            phase=loading.phase if loading else "",
            fraction=loading.fraction if loading else 0.0,
            replicas=replicas,
            in_flight=in_flight,
            waiting=self.leases - in_flight,
            num_loads=self._crew.num_loads,
            num_deaths=self._crew.num_deaths,
            load_s=last.load_s if last else None,
            phases=last.phases if last else {},
            loaded_at=self._crew.loaded_at,
            used_at=self._used_at,
            idle_ttl_s=idle_ttl_s,
            pinned=self.spec.pinned,
            needed_bytes=last.needed_bytes if last else None,
            host_bytes=sum(replica.host_bytes for replica in replicas),
            device_bytes=sum(replica.device_bytes for replica in replicas),
            last_error=self._crew.circuit.reason,
            retry_in_s=self._crew.circuit.wait_s(now),
        )

    async def fit(self) -> Fit:
        """Return whether the model would fit now, beside what it has already. Reads files."""
        found = await appraise(self.settings, self._tools.room, self._tools.measures)
        return fit(self.name, found, self._tools.room)

    def counters(self) -> dict[str, float]:
        """Return the engines' counters, summed over workers, and the model's own."""
        total: dict[str, float] = {}
        for handle in self.handles:
            for name, value in handle.counters.items():
                total[name] = total.get(name, 0.0) + value
        handles = self.handles
        own = {
            "loaded": float(bool(handles)),
            "in_flight": float(sum(handle.num_in_flight for handle in handles)),
            "replicas": float(len(handles)),
            "worker_loads": float(self._crew.num_loads),
            "worker_deaths": float(self._crew.num_deaths),
        }
        return {**total, **own}

    async def _take(self, wait: bool, near: str) -> Running:
        failures = self._crew.failures
        while True:
            if self._closing:
                raise ModelUnavailable(SHUTTING_DOWN)
            if self.lifecycle.removed:
                raise ModelNotFound(f"The model {self.name!r} was removed.", param="model")
            serving = {replica.id: replica.in_flight for replica in self.lifecycle.serving()}
            alive = {number: count for number, count in serving.items() if self._crew.running[number].alive}
            if alive:
                chosen = choose(near, alive)
                self.lifecycle.take(chosen)
                return self._crew.running[chosen]
            if not self.lifecycle.num_active():
                if self._crew.failures != failures and self._crew.error is not None:
                    raise self._crew.error
                self._check_circuit()
                self._crew.act(self.lifecycle.ask())
            if not wait:
                raise self._not_yet()
            await self._changed.wait()

    def _check_circuit(self) -> None:
        wait_s = self._crew.circuit.wait_s(time.monotonic())
        if wait_s:
            raise ModelUnavailable(
                f"The model {self.name!r} failed several times in a row and is not started for {wait_s:.0f} s more. "
                f"Last reason: {self._crew.circuit.reason}",
                retry_after_s=math.ceil(wait_s),
            )

    def _not_yet(self) -> ModelLoading:
        loading, last = self._crew.loading(), self._crew.last
        phase = loading.phase if loading else "starting"
        usual_s = last.load_s if last and last.load_s else self._tools.expected_s(self.settings)
        left_s = usual_s - loading.elapsed_s if usual_s and loading else _GUESS_S
        return ModelLoading(
            f"The model {self.name!r} is loading ({phase} {loading.fraction if loading else 0:.0%}). Ask again, or "
            "leave wait=0 out to wait for it.",
            retry_after_s=max(1, math.ceil(left_s)),
        )

    def _state(self) -> State:
        states = {replica.state for replica in self.lifecycle.replicas.values()}
        loading = self._crew.loading()
        if "ready" in states and not self.lifecycle.removed:
            return "ready"
        if loading is not None:
            return "downloading" if loading.phase == "download" else "loading"
        if states & {"draining", "stopping"}:
            return "draining"
        if states & {"waking"}:
            return "loading"
        if states & {"asleep", "dozing"}:
            return "asleep"
        if self._crew.circuit.reason:
            return "failed"
        return "unloaded" if self.info is not None else "registered"

    def _replica(self, running: Running) -> ReplicaStatus:
        replica = self.lifecycle.replicas[running.id]
        state: State = {"stopping": "draining", "dozing": "asleep", "waking": "loading"}.get(  # type: ignore[assignment]
            replica.state, replica.state
        )
        return running.status(state, replica.in_flight)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._tools.changed(self.name)


def as_start_error(error: ModelUnavailable) -> SensoriumError:
    """Return what to show when loading fails at start: there the worker's own words are enough."""
    cause = error.__cause__
    return cause if isinstance(cause, ConfigurationError) else error
