"""The engine: schedule, encode, forward, sample. One thread calls it; it knows token ids and nothing of text."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import torch

from sensorium.engine.blocks import BlockPool
from sensorium.engine.encoder_cache import EncoderCache
from sensorium.engine.encoding import EncoderRunner
from sensorium.engine.sampler import Sampled, sample
from sensorium.engine.scheduler import Scheduled, Scheduler
from sensorium.engine.sequence import Sequence
from sensorium.families.family import Encoder
from sensorium.model.attention import make_plan
from sensorium.model.decoder import Decoder, Step


@dataclass(frozen=True)
class EngineLimits:
    """Sizes an engine is built with; see `EngineSettings` for those a user sets."""

    num_blocks: int
    block_size: int = 32
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    max_mixed_tokens: int = 256
    prefix_caching: bool = True
    encoder_cache_bytes: int = 256 << 20
    encoder_budget: int = 1 << 14
    max_encoder_patches: int = 1 << 12


class Engine:
    """Runs sequences over a decoder and, where the model sees, an encoder."""

    def __init__(self, decoder: Decoder, encoder: Encoder | None, limits: EngineLimits) -> None:
        self.decoder = decoder
        self.limits = limits
        self.scheduler = Scheduler(
            BlockPool(limits.num_blocks),
            limits.block_size,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            max_mixed_tokens=limits.max_mixed_tokens,
            prefix_caching=limits.prefix_caching,
        )
        self.encoder_cache = EncoderCache(limits.encoder_cache_bytes)
        self._encoding = (
            EncoderRunner(
                encoder, self.encoder_cache, budget=limits.encoder_budget, max_patches=limits.max_encoder_patches
            )
            if encoder is not None
            else None
        )
        self._cache = decoder.new_cache(limits.num_blocks, limits.block_size)
        self.num_steps = 0
        self.num_computed_tokens = 0

    def add(self, sequence: Sequence) -> bool:
        """Queue a sequence.

        Returns:
            False, and nothing is queued, when a media item came without its input because its encoder output
            was cached, and has been evicted since: prepare the prompt again.
        """
        prompt = sequence.prompt
        pairs = list(zip(prompt.spans, prompt.inputs, strict=True))
        if any(item is None and span.key not in self.encoder_cache for span, item in pairs):
            return False
        for span in prompt.spans:
            self.encoder_cache.pin(span.key)
        self.scheduler.add(sequence)
        return True

    def remove(self, sequence: Sequence) -> None:
        """Drop a finished or aborted sequence; its blocks are free when this returns."""
        self.scheduler.remove(sequence)
        for span in sequence.prompt.spans:
            self.encoder_cache.unpin(span.key)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self.scheduler.running or self.scheduler.waiting or (self._encoding and self._encoding.busy))

    @torch.inference_mode()
    def step(self) -> list[tuple[Sequence, Sampled]]:
        """Advance all scheduled sequences; return the new token of each that got one (already appended)."""
        self.num_steps += 1
        scheduled = self.scheduler.schedule(self.encoder_cache)
        self._encode(scheduled)
        if not scheduled.num_new:
            return []
        step, sampling = self._build(scheduled.num_new)
        logits = self.decoder.forward(step, self._cache)
        for sequence, num_new in scheduled.num_new.items():
            self.scheduler.computed(sequence, num_new)
            self.num_computed_tokens += num_new
        if not sampling:
            return []
        results = list(zip(sampling, sample(logits, sampling), strict=True))
        for sequence, sampled in results:
            sequence.token_ids.append(sampled.token_id)
        return results

    def _encode(self, scheduled: Scheduled) -> None:
        if self._encoding is None:
            return
        if not self._encoding.busy and scheduled.wanted:
            found = (
                (key, seq.prompt.inputs[seq.prompt.spans.index(span)]) for key, (seq, span) in scheduled.wanted.items()
            )
            self._encoding.start([(key, item) for key, item in found if item is not None])
        self._encoding.run(others_wait=bool(scheduled.num_new))

    def _build(self, num_new: dict[Sequence, int]) -> tuple[Step, list[Sequence]]:
        """Flatten the scheduled tokens of all sequences into one Step."""
        ids: list[int] = []
        positions: list[np.ndarray] = []
        layout: list[tuple[int, int, SequenceOf[int]]] = []
        sampling: list[Sequence] = []
        logit_rows: list[int] = []
        media_rows: list[np.ndarray] = []
        features: list[torch.Tensor] = []
        for sequence, count in num_new.items():
            start, end, row = sequence.num_computed, sequence.num_computed + count, len(ids)
            ids += sequence.token_ids[start:end]
            positions.append(sequence.positions(start, end))
            layout.append((start, count, sequence.blocks))
            for span in sequence.prompt.spans:
                first, last = max(start, span.offset), min(end, span.offset + span.length)
                if first < last:
                    media_rows.append(np.arange(first, last) - start + row)
                    item = self.encoder_cache.get(span.key)  # (num_tokens, features)
                    features.append(item[first - span.offset : last - span.offset])
            if end == len(sequence.token_ids):
                sampling.append(sequence)
                logit_rows.append(row + count - 1)
        device = self.decoder.device
        step = Step(
            token_ids=torch.tensor(ids).to(device),
            positions=torch.from_numpy(np.concatenate(positions, -1)).to(device),
            plan=make_plan(layout, self.limits.block_size, self.decoder.dtype, device),
            logit_rows=torch.tensor(logit_rows, dtype=torch.int64).to(device),
            media_rows=torch.from_numpy(np.concatenate(media_rows)).to(device) if media_rows else None,
            media_features=torch.cat(features) if features else None,
        )
        return step, sampling
