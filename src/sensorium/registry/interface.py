"""What the gateway asks of loaded models and of the pool that loads them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sensorium.types import Event, ModelInfo, Request
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


class Pool(Protocol):
    """The models of this server, by the names they answer to."""

    def names(self) -> list[str]:
        """Return the served names, aliases included."""
        ...

    def default(self) -> str | None:
        """Return the name of the model that answers requests naming none, where it is clear which."""
        ...

    def lease(self, name: str) -> AbstractAsyncContextManager[ModelHandle]:
        """Hold the model for one request; loads it first if need be.

        Raises:
            ModelNotFound: no model answers to `name`.
            ModelUnavailable: it could not be loaded.
        """
        ...

    def info(self, name: str) -> ModelInfo | None:
        """Return what the model tells about itself; None while it is not loaded."""
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
