"""Encoder outputs by content key, within a byte budget, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class EncoderCache:
    """Maps a media item's key to its (num_slots, features) embeddings.

    Pinned entries belong to sequences that still have to read them and are never evicted; the budget bounds
    what is kept beyond that.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self._pins: dict[bytes, int] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, key: bytes) -> torch.Tensor:
        """Return the embeddings and mark them as used now."""
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: bytes, features: torch.Tensor) -> None:
        """Keep `features`; make room by dropping unpinned entries."""
        if key in self._entries:
            return
        self._entries[key] = features
        self.num_bytes += features.nbytes
        self._evict()

    def pin(self, key: bytes) -> None:
        """Keep the entry, present or to come, until `unpin`."""
        self._pins[key] = self._pins.get(key, 0) + 1

    def unpin(self, key: bytes) -> None:
        """Undo one `pin`."""
        self._pins[key] -= 1
        if not self._pins[key]:
            del self._pins[key]
            self._evict()

    def clear(self) -> None:
        """Forget everything; nothing may be pinned."""
        assert not self._pins
        self._entries.clear()
        self.num_bytes = 0

    def _evict(self) -> None:
        if self.num_bytes <= self.max_bytes:
            return
        for key in [key for key in self._entries if key not in self._pins]:
            self.num_bytes -= self._entries.pop(key).nbytes
            if self.num_bytes <= self.max_bytes:
                return
