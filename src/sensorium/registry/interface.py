"""What the gateway asks of loaded models and of the pool that loads them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sensorium.registry.spec import ModelSpec
from sensorium.registry.status import Change, Fit, ModelStatus
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

    def lease(self, name: str, *, wait: bool = True, near: str = "") -> AbstractAsyncContextManager[ModelHandle]:
        """Hold the model for one request; loads it first if need be.

        `wait=False` starts the loading but does not wait for it. Requests with the same `near` go to the same one of
        several workers, where load allows: it has their beginning in its caches.

        Raises:
            ModelNotFound: no model answers to `name`.
            ModelLoading: it is not loaded yet, and `wait` is False.
            NoRoom: there is no memory for it.
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

    def add(self, spec: ModelSpec) -> None:
        """Take a model in. It is loaded when it is asked for, or now where it is to be preloaded.

        Raises:
            AlreadyRegistered: the name is taken by a model with another spec; one with the same spec is fine.
            ModelNotFound: the model it is an adapter of is not there.
        """
        ...

    async def remove(self, name: str) -> None:
        """Forget a model: new requests do not find it, running ones end, then its memory is free.

        Raises:
            ModelNotFound: there is none of this name.
            InvalidRequest: it was named when the server was started, or adapters are registered over it.
        """
        ...

    async def load(self, name: str) -> None:
        """Load a model and wait until it is ready.

        Raises:
            ModelNotFound: there is none of this name.
            ModelUnavailable: it cannot be loaded.
        """
        ...

    async def unload(self, name: str) -> None:
        """Let running requests end, then give the model's memory back. The next request loads it again.

        Raises:
            ModelNotFound: there is none of this name.
        """
        ...

    def status(self, name: str) -> ModelStatus:
        """Return what can be seen of a model from outside.

        Raises:
            ModelNotFound: there is none of this name.
        """
        ...

    async def fit(self, name: str) -> Fit:
        """Return whether a model fits the memory, who would leave for it, and what to lower if it never will.

        Raises:
            ModelNotFound: there is none of this name.
        """
        ...

    def changes(self) -> AsyncGenerator[Change, None]:
        """Yield every change of any model's state, phase or workers, from now on."""
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
