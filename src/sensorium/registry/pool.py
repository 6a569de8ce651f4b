"""Which models there are, and the workers that hold them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager

import msgspec

from sensorium.errors import AlreadyRegistered, InvalidRequest, ModelUnavailable, SensoriumError
from sensorium.registry.changes import Changes
from sensorium.registry.loading import Tools
from sensorium.registry.measures import Forgetful, Measures
from sensorium.registry.memory import HOST, host_budget
from sensorium.registry.names import Names
from sensorium.registry.room import Room
from sensorium.registry.slot import SHUTTING_DOWN, Slot, as_start_error
from sensorium.registry.spec import ModelSpec
from sensorium.registry.status import Change, Fit, ModelStatus
from sensorium.registry.watchdog import Watchdog
from sensorium.settings import EngineSettings
from sensorium.types import Adapter, ModelInfo, Outlook
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.launcher import Launcher
from sensorium.worker.spawner import Spawner

_FRESH_S = 5.0  # beats come each second: five missing ones say "not ready" long before the worker is given up
IDLE_TTL_S = 300.0

log = logging.getLogger(__name__)


class Pool:
    """Loads models when they are asked for and hands out their workers. Belongs to one event loop.

    Args:
        models: name -> settings. Names with equal settings share one worker.
        launcher: starts workers; one that runs already saves the time of its imports.
        silent_after_s: a worker with work and no sign of life for this long is killed. Beats come each second and do
            not depend on the engine, so this means stopped, swapped out, or stuck for good.
        stalled_after_s: the same for the engine's loop. Long, as one step of a large model on a small machine may
            take minutes.
        keep_loaded: when a worker dies, start another without waiting for a request. `start(preload=True)` sets it.
        on_demand: names of models that are loaded with the first request for them, whatever else is said here, and
            never answer one that names no model.
        on_progress: told about loading: model, phase, fraction.
        idle_ttl_s: models that are not to be kept loaded are unloaded after so long without a request; -1: never.
        budgets: memory -> bytes that models may take together: {"host": ..., "cuda:0": ...}.
        measures: remembers what models took.
        drain_s: how long running requests may take to end where a model is unloaded or removed.
    """

    def __init__(
        self,
        models: Mapping[str, EngineSettings],
        *,
        launcher: Spawner | None = None,
        silent_after_s: float = 30.0,
        stalled_after_s: float = 600.0,
        keep_loaded: bool = False,
        on_demand: Collection[str] = (),
        on_progress: Callable[[str, str, float], None] | None = None,
        idle_ttl_s: float = IDLE_TTL_S,
        budgets: Mapping[str, int] | None = None,
        measures: Measures | None = None,
        drain_s: float = 30.0,
    ) -> None:
        self._launcher: Spawner = launcher or Launcher()
        self._fresh_s = min(_FRESH_S, silent_after_s)
        budgets = {HOST: host_budget(), **(budgets or {})}
        self._changes = Changes(self._look)
        self.room = Room(budgets)
        self._tools = Tools(
            self._launcher,
            self.room,
            self._changes.note,
            on_progress,
            measures or Forgetful(),
            idle_ttl_s,
            drain_s,
            sleeps=len(budgets) > 1,
        )
        self._slots: list[Slot] = []
        named: dict[str, Slot] = {}
        for name, settings in models.items():
            slot = next((slot for slot in self._slots if slot.settings == settings), None)
            if slot is None:
                slot = Slot(ModelSpec(settings.name or settings.model, settings), self._tools, named=True)
                slot.keep_loaded = keep_loaded and name not in on_demand
                self._slots.append(slot)
            named[name] = slot
        self._names = Names(named)
        self._adapters = self._names.adapters
        self._specs: dict[str, ModelSpec] = {}  # of registered models and adapters
        self._eager = {name: slot for name, slot in named.items() if name not in on_demand}
        self._leaving: list[Slot] = []
        self._background: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Condition()
        self._watchdog = Watchdog(lambda: [*self._slots, *self._leaving], silent_after_s, stalled_after_s)
        self._closing = False

    def names(self) -> list[str]:
        """Every name a request may use; those of models come first."""
        return self._names.all()

    def default(self) -> str | None:
        """The model of a request that names none: the only one, but for those that wait to be asked for."""
        eager = self._eager or self._names.models
        return next(iter(eager)) if len(set(eager.values())) == 1 else None

    def adapter(self, name: str) -> Adapter | None:
        """The adapter that `name` stands for; None: it is a model's own name."""
        return self._adapters.adapter(name)

    def base(self, name: str) -> str | None:
        """The served name of an adapter's model; None: `name` is no adapter."""
        return self._names.base(name)

    async def load_adapter(self, adapter: Adapter, base: str | None, again: bool) -> None:
        """Let a model read an adapter and answer to its name; see `AdapterNames.load`."""
        self._begin()
        await self._adapters.load(adapter, base, again)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; see `AdapterNames.unload`.

        Raises:
            InvalidRequest: it is registered: what is kept of it would stay.
        """
        if name in self._specs and name in self._adapters:
            raise InvalidRequest(
                f"The adapter {name!r} is registered; DELETE /v1/models/{name} removes it.", param="lora_name"
            )
        await self._adapters.unload(name)

    def add(self, spec: ModelSpec) -> None:
        """Take a model in. It is loaded when it is asked for, or now where it is to be preloaded.

        Raises:
            AlreadyRegistered: the name is taken by a model with another spec; one with the same spec is fine.
            ModelNotFound: the model it is an adapter of is not there.
        """
        alias = spec.alias
        if self._specs.get(alias) == spec:
            return
        if alias in self.names():
            raise AlreadyRegistered(
                f"Another model is called {alias!r} here; remove it first, or register this one under another alias.",
                param="alias",
            )
        if spec.lora_of is not None:
            self._adapters.add(Adapter(alias, spec.settings.model), self._names.slot(spec.lora_of))
        else:
            slot = self._names.models[alias] = Slot(spec, self._tools)
            self._slots.append(slot)
            if spec.preload or spec.min_replicas:
                self._begin()
                self._later(self._preload(slot))
        self._specs[alias] = spec
        self._changes.note(alias)

    async def remove(self, name: str) -> None:
        """Forget a model: new requests do not find it, running ones end, then its memory is free.

        Raises:
            ModelNotFound: there is none of this name.
            InvalidRequest: it was named when the server was started, or adapters are registered over it.
        """
        slot = self._names.slot(name)
        spec = self._specs.get(name)
        if spec is None:
            raise InvalidRequest(f"The model {name!r} was named when the server was started and stays.", param="alias")
        over = [alias for alias, other in self._specs.items() if other.lora_of == name]
        if over:
            raise InvalidRequest(f"{', '.join(map(repr, over))} are adapters over {name!r}; remove them first.")
        del self._specs[name]
        if spec.lora_of is not None:
            await self._adapters.unload(name)
            self._changes.note(name)
            return
        self._adapters.forget(slot)
        del self._names.models[name]
        self._slots.remove(slot)
        self._leaving.append(slot)
        self._changes.note(name)
        try:
            await asyncio.shield(self._removed(slot))
        finally:
            self._changes.note(name)

    async def load(self, name: str) -> None:
        """Load a model and wait until it is ready.

        Raises:
            ModelNotFound: there is none of this name.
            ModelUnavailable: it cannot be loaded.
        """
        async with self.lease(name):
            pass

    async def unload(self, name: str) -> None:
        """Let running requests end, then give the model's memory back. The next request loads it again.

        Raises:
            ModelNotFound: there is none of this name.
        """
        await asyncio.shield(self._names.slot(name).unload())

    def status(self, name: str) -> ModelStatus:
        """What can be seen of a model from outside.

        Raises:
            ModelNotFound: there is none of this name.
        """
        slot = self._names.slot(name)
        status = slot.status()
        adapter = self._adapters.adapter(name)
        if adapter is None:
            return msgspec.structs.replace(status, alias=name)
        return msgspec.structs.replace(status, alias=name, model=adapter.path, lora_of=self.base(name))

    async def fit(self, name: str) -> Fit:
        """Whether a model fits the memory, who would leave for it, and what to lower if it never will.

        Raises:
            ModelNotFound: there is none of this name.
        """
        return await self._names.slot(name).fit()

    def changes(self) -> AsyncGenerator[Change, None]:
        """Every change of any model's state, phase or workers, from the first `anext` on."""
        return self._changes.listen()

    def info(self, name: str) -> ModelInfo | None:
        """What the model told when it was loaded; None if it never was.

        Raises:
            ModelNotFound: no model has this name.
        """
        return self._names.slot(name).info

    def outlook(self, name: str) -> Outlook:
        """What can be said of a model before it is loaded.

        Raises:
            ModelNotFound: no model has this name.
        """
        return self._names.slot(name).outlook()

    @asynccontextmanager
    async def lease(self, name: str, *, wait: bool = True, near: str = "") -> AsyncGenerator[WorkerHandle, None]:
        """Use a model: it is loaded now if it is not, and stays while the lease lasts. See `Lender.lease`.

        Raises:
            ModelNotFound: no model has this name; the message tells near ones.
            ModelLoading: it is not loaded, and `wait` is False.
            ModelUnavailable: it cannot be loaded now.
        """
        slot = self._names.slot(name)
        if self._closing:
            raise ModelUnavailable(SHUTTING_DOWN)
        self._begin()
        try:
            async with slot.use(wait=wait, near=near) as handle:
                yield handle
        finally:
            if self._closing:
                async with self._idle:
                    self._idle.notify_all()

    def ready(self) -> tuple[bool, str]:
        """Return whether requests would be answered now, and a sentence that says why (not).

        Models that are to stay loaded must be loaded and have a fresh heartbeat; others count only while loaded.
        """
        if self._closing:
            return False, SHUTTING_DOWN
        states = [slot.state(self._fresh_s) for slot in self._slots if slot.keep_loaded or slot.handle is not None]
        problems = [sentence for good, sentence in states if not good]
        if problems:
            return False, "; ".join(problems)
        return True, "; ".join(sentence for _, sentence in states) or "models are loaded when they are asked for"

    def counters(self) -> dict[str, dict[str, float]]:
        """Return each model's counters, by its first name."""
        return {slot.name: slot.counters() for slot in self._slots}

    async def start(self, preload: bool) -> None:
        """Start the zygote; with `preload` load every model that is not on demand, and keep it loaded.

        Raises:
            SensoriumError: a model cannot be loaded.
        """
        self._begin()
        for slot in dict.fromkeys(self._eager.values()) if preload else ():
            slot.keep_loaded = True
            try:
                await slot.load()
            except ModelUnavailable as error:
                raise as_start_error(error) from None

    async def close(self, grace_s: float) -> None:
        """Take no more requests, let running ones end for at most `grace_s`, then end all processes."""
        self._closing = True
        slots = [*self._slots, *self._leaving]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s), self._idle:
                await self._idle.wait_for(lambda: not any(slot.leases for slot in slots))
        self._watchdog.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*(slot.close() for slot in slots))
        self._launcher.close()

    def _begin(self) -> None:
        self._launcher.start()
        self._watchdog.start()

    def _look(self, name: str) -> ModelStatus | None:
        return self.status(name) if name in self._names.all() else None

    async def _preload(self, slot: Slot) -> None:
        try:
            await slot.load()
        except SensoriumError as error:
            log.error("model %r could not be preloaded: %s", slot.name, error.message)

    async def _removed(self, slot: Slot) -> None:
        await slot.remove()
        self._leaving.remove(slot)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
