"""Run the encoder beside the decoder, a few layers at a time.

A picture of a million pixels can take longer than a hundred decode steps. So a batch of pictures is encoded
layer by layer, and while others have tokens to compute, a step runs only as many layers as fit in the time the
rest of such a step takes. Measured time, because what a layer costs beside a decode step depends on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.engine.team import Team
from sensorium.families.family import Encoder, EncoderInput
from sensorium.model.lora import Lanes, Lora


class EncoderRunner:
    """Encodes one batch of media items at a time into the cache.

    Args:
        encoders: by the name an item calls its own by.
        cache: where the outputs go.
        team: chooses the number of threads for each layer.
        max_patches: the cost up to which items are encoded as one batch; a larger picture is a batch of its own.
    """

    def __init__(self, encoders: Mapping[str, Encoder], cache: EncoderCache, team: Team, *, max_patches: int) -> None:
        self.cache = cache
        self._encoders, self._team = encoders, team
        self._max_patches = max_patches
        self._job: Iterator[list[torch.Tensor] | None] | None = None
        self._keys: list[bytes] = []
        self._cost = 0
        self._suspects: set[bytes] = set()  # of a batch that failed: each is encoded alone
        self.num_encoded = 0
        self._adapted: Lanes | None = None  # of the encoder at work, while an adapter changes it

    @property
    def busy(self) -> bool:
        """Whether a batch is under way."""
        return self._job is not None

    def start(self, wanted: Sequence[tuple[bytes, EncoderInput, Lora | None]]) -> None:
        """Begin with as many of the wanted items, in order, as make one batch for the first one's encoder and adapter.

        Args:
            wanted: key, item, and the adapter that changes its encoder.
        """
        name, adapter = wanted[0][1].encoder, wanted[0][2]
        alone = wanted[0][0] in self._suspects
        batch: list[tuple[bytes, EncoderInput]] = []
        cost = 0
        for key, item, lora in wanted:
            if item.encoder != name or lora is not adapter or (batch and key in self._suspects):
                continue
            cost += item.cost
            if batch and (alone or cost > self._max_patches):
                break
            batch.append((key, item))
        self._keys = [key for key, _ in batch]
        self._cost = sum(item.cost for _, item in batch)
        if adapter is not None:
            self._adapted = self._encoders[name].sites.lanes
            self._adapted.groups = ((adapter, None),)
        self._job = iter(self._encoders[name].encode([item for _, item in batch]))

    def give_up(self) -> list[bytes]:
        """Drop the batch; return the key that it failed for. Of several each is tried alone first: none is returned."""
        self._end()
        if len(self._keys) > 1:
            self._suspects = set(self._keys)
            return []
        self._suspects.difference_update(self._keys)
        return self._keys

    def run(self, max_s: float | None) -> None:
        """Go on with the batch: to its end, or for about `max_s` seconds, one layer at least."""
        started = time.monotonic()
        while self._job is not None:
            with self._team.at_work("encoder", self._cost):
                result = next(self._job)
            if result is not None:
                for key, features in zip(self._keys, result, strict=True):
                    self.cache.put(key, features)
                self.num_encoded += len(self._keys)
                self._suspects.difference_update(self._keys)
                self._end()
            elif max_s is not None:
                if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                    torch.cuda.synchronize()  # launched is not done
                if time.monotonic() - started >= max_s:
                    return

    def _end(self) -> None:
        self._job = None
        if self._adapted is not None:
            self._adapted.groups = ()
            self._adapted = None
