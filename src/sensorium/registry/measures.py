"""What loaded models were measured to take, so that the next estimate is right."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Measured(msgspec.Struct, frozen=True):
    """What one model took when it was loaded last, without its KV cache. `load_s`: seconds until it was ready."""

    host_bytes: int
    device_bytes: int
    load_s: float


class Measures(Protocol):
    """Keeps them, by a key that says what was loaded and how."""

    def measured(self, key: str) -> Measured | None:
        """Return what is known."""

    def remember(self, key: str, measured: Measured) -> None:
        """Keep it; returns at once."""


class Forgetful:
    """Keeps them as long as the process lives."""

    def __init__(self) -> None:
        self._known: dict[str, Measured] = {}

    def measured(self, key: str) -> Measured | None:
        return self._known.get(key)

    def remember(self, key: str, measured: Measured) -> None:
        self._known[key] = measured
