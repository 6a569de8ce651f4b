"""The adapters of a loaded model: read when first asked for; of those nobody uses the least recent are put away."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from sensorium.errors import ConfigurationError, ModelUnavailable
from sensorium.model.lora import Lora
from sensorium.types import Adapter

log = logging.getLogger(__name__)


class Adapters:
    """Reads adapters and keeps up to `max_loras` of them. Any thread may call it.

    Sequences hold on to theirs, so putting one away frees its memory when the last answer with it ends.

    Args:
        read: an adapter's folder -> the adapter, fitted to the model.
        always: the adapter of requests that name none.
    """

    def __init__(self, read: Callable[[str], Lora], max_loras: int, always: Adapter | None = None) -> None:
        self._read, self._max, self._always = read, max_loras, always
        self._kept: OrderedDict[Adapter, Lora] = OrderedDict()
        self._reading = threading.Lock()  # taken first: one adapter is read at a time, and no one waits who reads none
        self._lock = threading.Lock()  # of what is kept

    @property
    def num_kept(self) -> int:
        """Adapters in memory."""
        return len(self._kept)

    def get(self, wanted: Adapter | None) -> Lora | None:
        """Return the adapter of a request, read now if it is not there; None: the base alone.

        Raises:
            ModelUnavailable: its files cannot be used any more.
        """
        wanted = wanted or self._always
        if wanted is None:
            return None
        found = self._find(wanted)
        if found is None:
            with self._reading:
                try:
                    found = self._find(wanted) or self._keep(wanted)
                except ConfigurationError as error:
                    raise ModelUnavailable(f"The adapter {wanted.name!r} cannot be loaded: {error.message}") from None
        return found

    def load(self, adapter: Adapter) -> None:
        """Read an adapter's files, also where they were read before.

        Raises:
            ConfigurationError: they do not fit the model, or cannot be read; what was there before stays.
        """
        with self._reading:
            self._keep(adapter)
            self._drop(lambda other: other.name == adapter.name and other != adapter)

    def unload(self, name: str) -> None:
        """Put away whatever is called `name`."""
        with self._reading:  # also one that is being read now
            self._drop(lambda adapter: adapter.name == name)

    def _find(self, wanted: Adapter) -> Lora | None:
        with self._lock:
            if wanted in self._kept:
                self._kept.move_to_end(wanted)
            return self._kept.get(wanted)

    def _drop(self, unwanted: Callable[[Adapter], bool]) -> None:
        with self._lock:
            for adapter in [adapter for adapter in self._kept if unwanted(adapter)]:
                del self._kept[adapter]

    def _keep(self, adapter: Adapter) -> Lora:
        lora = self._read(adapter.path)
        with self._lock:
            self._kept[adapter] = lora
            self._kept.move_to_end(adapter)
            while len(self._kept) > self._max:
                self._kept.popitem(last=False)
        size = (lora.rank, len(lora.pairs), lora.num_bytes / (1 << 20))
        log.info("adapter %r: rank %d, %d layers, %.1f MiB", adapter.name, *size)
        return lora
