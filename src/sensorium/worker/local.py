"""A model in this process, with the face of a WorkerHandle: what the offline API runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sensorium.errors import SensoriumError, WorkerDied
from sensorium.settings import EngineSettings
from sensorium.types import Event, ModelInfo, Request
from sensorium.worker.frames import Tokens
from sensorium.worker.inflight import InFlight
from sensorium.worker.process import Model


class LocalLoader(Protocol):
    """Loads a model that shares its process: `ChosenModel.load`. `on_dead` is called if its engine cannot go on."""

    def __call__(
        self,
        settings: EngineSettings,
        *,
        on_progress: Callable[[str, float], None],
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_dead: Callable[[], None],
    ) -> Model: ...


class LocalHandle:
    """Runs requests on a model that was loaded in this process. Belongs to one event loop."""

    info: ModelInfo

    def __init__(self, model: Model, in_flight: InFlight) -> None:
        self.info = model.info
        self.model = model
        self._loop = asyncio.get_running_loop()
        self._in_flight = in_flight

    @classmethod
    async def load(
        cls, load: LocalLoader, settings: EngineSettings, on_progress: Callable[[str, float], None]
    ) -> LocalHandle:
        """Load a model; `on_progress` is called from another thread.

        Raises:
            SensoriumError: it cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        in_flight = InFlight()

        def on_events(events: list[Event]) -> None:
            loop.call_soon_threadsafe(in_flight.deliver, events)

        def on_failed(request_id: str, error: SensoriumError) -> None:
            loop.call_soon_threadsafe(in_flight.fail, request_id, error.info())

        def on_dead() -> None:
            died = WorkerDied("The engine ended with an error, which the log has. Load the model again.")
            loop.call_soon_threadsafe(in_flight.fail_all, died.info())

        def start() -> Model:
            return load(settings, on_progress=on_progress, on_events=on_events, on_failed=on_failed, on_dead=on_dead)

        with ThreadPoolExecutor(1) as thread:  # that ends: see worker/openmp.py
            return cls(await loop.run_in_executor(thread, start), in_flight)

    def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run a request: `Started`, then `Delta`s. Closing the generator aborts it.

        Raises:
            SensoriumError: the request failed.
        """

        async def submit() -> None:
            self.model.generate(request)

        return self._in_flight.generate(request, submit, lambda: self.model.abort(request.id))

    async def tokenize(self, request: Request) -> Tokens:
        """Return the prompt of a request as the model would see it."""
        return await asyncio.to_thread(self.model.tokenize, request)

    async def detokenize(self, token_ids: list[int]) -> Tokens:
        """Return the text of token ids."""
        return await asyncio.to_thread(self.model.detokenize, token_ids)

    def close(self) -> None:
        """Stop the engine and free its memory; what still runs fails. Blocks; may be called from any thread.

        It uses no executor: at the interpreter's end those take no more work.
        """
        closed = SensoriumError("The model was closed.").info()
        self._loop.call_soon_threadsafe(self._in_flight.fail_all, closed)
        self.model.close()
