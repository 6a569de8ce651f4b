"""What the gateway asks of loaded models and of the pool that loads them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sensorium.types import Adapter, Event, ModelInfo, Outlook, Request
from sensorium.worker.frames import Tokens


class ModelHandle(Protocol):
    """A loaded model, in a worker process or in this one."""

    info: ModelInfo

    def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield Started, then Deltas until every choice has its finish reason; closing it aborts the request.

        Raises:
            SensoriumError: before Started, the request cannot be served; after it, the answer was lost.
        """
        ...

    async def tokenize(self, request: Request) -> Tokens:
        """Build the prompt of `request` without running it."""
        ...

    async def detokenize(self, token_ids: list[int]) -> Tokens:
        """Turn ids into text."""
        ...


class Lender(Protocol):
    """What the way of a request needs: models by name."""

    def adapter(self, name: str) -> Adapter | None:
        """Return the adapter that `name` stands for; None: it is a model's own name."""
        ...

    def lease(self, name: str) -> AbstractAsyncContextManager[ModelHandle]:
        """Hold the model for one request; loads it first if need be.

        Raises:
            ModelNotFound: no model answers to `name`.
            ModelUnavailable: it could not be loaded.
        """
        ...


class Pool(Lender, Protocol):
    """The models of this server, by the names they answer to."""

    def names(self) -> list[str]:
        """Return the served names, aliases included."""
        ...

    def default(self) -> str | None:
        """Return the only model's name, where exactly one is served."""
        ...

    def base(self, name: str) -> str | None:
        """Return the served name of the model that the adapter `name` is for; None: it is no adapter."""
        ...

    async def load_adapter(self, adapter: Adapter, base: str | None, again: bool) -> None:
        """Let the model served as `base` (None: the only one) read an adapter and answer to its name.

        Raises:
            InvalidRequest: the name is taken (and not `again`), no base is named, or the files do not fit it.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; answers that use it go on.

        Raises:
            ModelNotFound: there is none of this name.
        """
        ...

    def info(self, name: str) -> ModelInfo | None:
        """Return what the model tells about itself; None while it is not loaded."""
        ...

    def outlook(self, name: str) -> Outlook:
        """Return what can be said of a model before it is loaded."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Say whether every loaded model's engine loop beats, and if not, why."""
        ...

    def counters(self) -> dict[str, dict[str, float]]:
        """Return each loaded model's counters, as of its last heartbeat."""
        ...

    async def close(self, grace_s: float) -> None:
        """End every worker; one that does not end within `grace_s` seconds is killed."""
        ...
