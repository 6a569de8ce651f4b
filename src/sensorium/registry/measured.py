"""What loading a model took, measured: it corrects the estimates the next time, also after a restart."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """One load of one thing: memory in bytes, of the process and of the accelerator, and seconds."""

    host_bytes: int
    device_bytes: int = 0
    load_s: float = 0.0
    kv_cache_bytes: int = 0  # part of the above
    peak_host_bytes: int = 0  # the most it had while it was loaded


class Measurements(Protocol):
    """Where measured sizes are looked up and put. Neither call waits for a disk."""

    def measured(self, key: str) -> Measured | None:
        """Return what was measured for `key`, a fingerprint of what is loaded and how."""
        ...

    def remember(self, key: str, measured: Measured) -> None:
        """Note a measurement; the newest counts."""
        ...


class InMemory:
    """Measurements that end with the process."""

    def __init__(self) -> None:
        self._known: dict[str, Measured] = {}

    def measured(self, key: str) -> Measured | None:
        """Return what was measured for `key`."""
        return self._known.get(key)

    def remember(self, key: str, measured: Measured) -> None:
        """Note a measurement."""
        self._known[key] = measured
