"""Which models there are, and the workers that hold them."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager

from sensorium.errors import ModelNotFound, ModelUnavailable
from sensorium.registry.adapters import AdapterNames
from sensorium.registry.slot import Progress, Slot, as_start_error
from sensorium.settings import EngineSettings
from sensorium.types import Adapter, ModelInfo, Outlook
from sensorium.worker.handle import WorkerHandle
from sensorium.worker.launcher import Launcher

_WATCH_S = 1.0
_FRESH_S = 5.0  # beats come each second: five missing ones say "not ready" long before the worker is given up
_SHUTTING_DOWN = "The server is shutting down."


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
    """

    def __init__(
        self,
        models: Mapping[str, EngineSettings],
        *,
        launcher: Launcher | None = None,
        silent_after_s: float = 30.0,
        stalled_after_s: float = 600.0,
        keep_loaded: bool = False,
        on_demand: Collection[str] = (),
        on_progress: Progress | None = None,
    ) -> None:
        self._launcher = launcher or Launcher()
        self._silent_after_s = silent_after_s
        self._stalled_after_s = stalled_after_s
        self._slots: list[Slot] = []
        self._names: dict[str, Slot] = {}
        for name, settings in models.items():
            slot = next((slot for slot in self._slots if slot.settings == settings), None)
            if slot is None:
                kept = keep_loaded and name not in on_demand
                slot = Slot(settings, self._launcher, on_progress, keep_loaded=kept)
                self._slots.append(slot)
            self._names[name] = slot
        self._adapters = AdapterNames(self._names)
        self._eager = {name: slot for name, slot in self._names.items() if name not in on_demand}
        self._idle = asyncio.Condition()
        self._watching: asyncio.Task[None] | None = None
        self._closing = False

    def names(self) -> list[str]:
        """Every name a request may use; those of models come first."""
        return [*self._names, *self._adapters]

    def default(self) -> str | None:
        """The model of a request that names none: the only one, but for those that wait to be asked for."""
        return next(iter(self._eager)) if len(set(self._eager.values())) == 1 else None

    def adapter(self, name: str) -> Adapter | None:
        """The adapter that `name` stands for; None: it is a model's own name."""
        return self._adapters.adapter(name)

    def base(self, name: str) -> str | None:
        """The served name of an adapter's model; None: `name` is no adapter."""
        slot = self._adapters.slot(name)
        return next((served for served, found in self._names.items() if found is slot), None)

    async def load_adapter(self, adapter: Adapter, base: str | None, again: bool) -> None:
        """Let a model read an adapter and answer to its name; see `AdapterNames.load`."""
        self._begin()
        await self._adapters.load(adapter, base, again)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; see `AdapterNames.unload`."""
        await self._adapters.unload(name)

    def info(self, name: str) -> ModelInfo | None:
        """What the model told when it was loaded; None if it never was.

        Raises:
            ModelNotFound: no model has this name.
        """
        return self._slot(name).info

    def outlook(self, name: str) -> Outlook:
        """What can be said of a model before it is loaded.

        Raises:
            ModelNotFound: no model has this name.
        """
        return self._slot(name).outlook()

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncGenerator[WorkerHandle, None]:
        """Use a model: it is loaded now if it is not, and stays while the lease lasts.

        Raises:
            ModelNotFound: no model has this name; the message tells near ones.
            ModelUnavailable: it cannot be loaded now.
        """
        slot = self._slot(name)
        if self._closing:
            raise ModelUnavailable(_SHUTTING_DOWN)
        self._begin()
        slot.leases += 1
        try:
            yield await slot.get()
        finally:
            slot.leases -= 1
            if self._closing:
                async with self._idle:
                    self._idle.notify_all()

    def ready(self) -> tuple[bool, str]:
        """Return whether requests would be answered now, and a sentence that says why (not).

        Models that are to stay loaded must be loaded and have a fresh heartbeat; others count only while loaded.
        """
        if self._closing:
            return False, _SHUTTING_DOWN
        states = [
            slot.state(min(_FRESH_S, self._silent_after_s))
            for slot in self._slots
            if slot.keep_loaded or slot.handle is not None
        ]
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
                await slot.get()
            except ModelUnavailable as error:
                raise as_start_error(error) from None

    async def close(self, grace_s: float) -> None:
        """Take no more requests, let running ones end for at most `grace_s`, then end all processes."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s), self._idle:
                await self._idle.wait_for(lambda: not any(slot.leases for slot in self._slots))
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*(slot.close() for slot in self._slots))
        self._launcher.close()

    def _begin(self) -> None:
        self._launcher.start()
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch(), name="watchdog")

    def _slot(self, name: str) -> Slot:
        slot = self._names.get(name) or self._adapters.slot(name)
        if slot is None:
            near = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.4) or self.names()[:3]
            known = ", ".join(map(repr, near)) or "none"
            raise ModelNotFound(f"The model {name!r} does not exist. Nearest: {known}.", param="model")
        return slot

    async def _watch(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            # After a pause of our own (a laptop asleep, a stopped gateway) beats wait in the socket: read them first.
            if now - last < 2 * _WATCH_S + 1.0:
                for slot in self._slots:
                    slot.watch(self._silent_after_s, self._stalled_after_s)
            last = now
