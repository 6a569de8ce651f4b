"""Weights that leave the accelerator and come back: kept in host memory, under the very tensors that use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch


class Parked:
    """Holds what `park` took off a device.

    The storages are emptied in place, as FSDP does with its flat parameters, so that every view of them, tied
    embeddings included, is there again after `restore` and nothing has to be told.
    """

    def __init__(self, storages: list[torch.UntypedStorage]) -> None:
        self._held: list[tuple[torch.UntypedStorage, torch.Tensor]] = []
        for storage in storages:
            kept = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=storage.device.type == "cuda")
            kept.copy_(_bytes(storage))
            self._held.append((storage, kept))
            storage.resize_(0)

    @property
    def num_bytes(self) -> int:
        """What the host holds."""
        return sum(kept.numel() for _, kept in self._held)

    def restore(self) -> None:
        """Put everything back.

        Raises:
            torch.OutOfMemoryError: the device has no room; what is back so far stays, call it again.
        """
        while self._held:
            storage, kept = self._held[-1]
            storage.resize_(kept.numel())
            _bytes(storage).copy_(kept)
            self._held.pop()


def park(*roots: object) -> Parked:
    """Move every tensor that objects of this package hold, however deep, to the host.

    Storages that belong to others (mapped files, numpy's memory) and packed weights stay where they are; on an
    accelerator there are none.
    """
    storages: dict[int, torch.UntypedStorage] = {}
    for tensor in tensors(*roots):
        if tensor.is_mkldnn or tensor.layout != torch.strided:
            continue
        storage = tensor.untyped_storage()
        if storage.resizable() and storage.nbytes():
            storages[storage.data_ptr()] = storage
    return Parked(list(storages.values()))


def tensors(*roots: object) -> Iterator[torch.Tensor]:
    """Yield the tensors reachable from `roots` through containers and through attributes of this package's objects."""
    seen: set[int] = set()
    pending = list(roots)
    while pending:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            yield thing
        elif isinstance(thing, Mapping):
            pending.extend(thing.values())
        elif isinstance(thing, list | tuple | set | frozenset):
            pending.extend(thing)
        elif type(thing).__module__.startswith("sensorium."):
            pending.extend(vars(thing).values() if hasattr(thing, "__dict__") else ())
            pending.extend(getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ()))


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
