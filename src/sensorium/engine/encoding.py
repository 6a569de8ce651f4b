"""Run the encoder beside the decoder, a few layers at a time.

A picture of a million pixels can take longer than a hundred decode steps. So a batch of pictures is encoded
layer by layer, and while somebody is decoding only as many layers run per step as a work budget allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.families.family import Encoder, EncoderInput


class EncoderRunner:
    """Encodes one batch of media items at a time into the cache.

    Args:
        budget: patches x layers of work per step while others decode.
        max_patches: how many patches are encoded as one batch; a larger picture is a batch of its own.
    """

    def __init__(self, encoder: Encoder, cache: EncoderCache, *, budget: int, max_patches: int) -> None:
        self.cache = cache
        self._encoder = encoder
        self._budget = budget
        self._max_patches = max_patches
        self._job: Iterator[list[torch.Tensor] | None] | None = None
        self._keys: list[bytes] = []
        self._num_patches = 0

    @property
    def busy(self) -> bool:
        """Whether a batch is under way."""
        return self._job is not None

    def start(self, wanted: Sequence[tuple[bytes, EncoderInput]]) -> None:
        """Begin with as many of the wanted items, in order, as make one batch."""
        batch: list[tuple[bytes, EncoderInput]] = []
        self._num_patches = 0
        for key, item in wanted:
            patches = item.pixel_values.shape[0]
            if batch and self._num_patches + patches > self._max_patches:
                break
            batch.append((key, item))
            self._num_patches += patches
        self._keys = [key for key, _ in batch]
        self._job = iter(self._encoder.encode([item for _, item in batch]))

    def run(self, *, others_wait: bool) -> None:
        """Go on with the batch: to its end, or, while `others_wait`, for the budget's worth of layers."""
        layers = max(1, self._budget // max(1, self._num_patches)) if others_wait else -1
        while self._job is not None and layers != 0:
            result = next(self._job)
            layers -= 1
            if result is not None:
                for key, features in zip(self._keys, result, strict=True):
                    self.cache.put(key, features)
                self._job = None
