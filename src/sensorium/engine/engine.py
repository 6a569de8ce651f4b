"""The engine: schedule, encode, forward, sample. One thread calls it; it knows token ids and nothing of text."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

import numpy as np
import torch

from sensorium.engine.blocks import BlockPool
from sensorium.engine.encoder_cache import EncoderCache
from sensorium.engine.encoding import EncoderRunner
from sensorium.engine.sampler import Sampled, sample
from sensorium.engine.scheduler import Scheduled, Scheduler
from sensorium.engine.sequence import Sequence
from sensorium.engine.team import Team
from sensorium.families.family import Encoder, EncoderInput, MediaSpan
from sensorium.model.attention import make_plan
from sensorium.model.decoder import Decoder, Step
from sensorium.model.lora import Lora, group_rows
from sensorium.model.parking import Parked, park
from sensorium.model.rope import prompt_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineLimits:
    """Sizes an engine is built with; see `EngineSettings` for those a user sets."""

    num_blocks: int
    block_size: int = 16
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    max_mixed_tokens: int = 256
    prefix_caching: bool = True
    encoder_cache_bytes: int = 256 << 20
    encoder_share: float = 1.0  # of a step's time, for the encoder, while others have tokens to compute
    max_encoder_patches: int = 1 << 12  # of one batch, in units of `EncoderInput.cost`


@dataclass
class StepResult:
    """What a step gave: new tokens, and sequences it cannot go on with (the caller removes them)."""

    tokens: list[tuple[Sequence, Sampled]] = field(default_factory=list)
    failed: list[Sequence] = field(default_factory=list)


class Engine:
    """Runs sequences over a decoder and, where the model sees or hears, its encoders.

    Args:
        decoder: the language model.
        encoders: by the name an item calls its own by.
        limits: sizes.
        team: chooses the number of threads of each step; None: it stays what it is.
    """

    def __init__(
        self, decoder: Decoder, encoders: Mapping[str, Encoder], limits: EngineLimits, team: Team | None = None
    ) -> None:
        self.team = team or Team(1, lambda threads: None)
        self.decoder = decoder
        self.limits = limits
        self.scheduler = _scheduler(limits)
        self.encoder_cache = EncoderCache(limits.encoder_cache_bytes)
        self._encoding = (
            EncoderRunner(encoders, self.encoder_cache, self.team, max_patches=limits.max_encoder_patches)
            if encoders
            else None
        )
        self._cache = decoder.new_cache(limits.num_blocks, limits.block_size)
        self._step_s = 0.0  # running mean of what a step takes without the encoder
        self._parked: Parked | None = None
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
        sequence.rope_row = prompt_table(sequence.num_prompt_tokens, self.decoder.config)
        self.scheduler.add(sequence)
        return True

    def remove(self, sequence: Sequence) -> None:
        """Drop a finished or aborted sequence; its blocks are free when this returns."""
        self.scheduler.remove(sequence)
        for span in sequence.prompt.spans:
            self.encoder_cache.unpin(span.key)

    def sleep(self) -> None:
        """Move the weights to the host and forget the caches. Nothing runs, and nothing may until `wake`."""
        assert not self.has_work
        assert self._parked is None
        self._cache.clear()
        self.encoder_cache.clear()
        self.scheduler = _scheduler(self.limits)
        self._parked = park(self)
        if self.decoder.device.type == "cuda":
            torch.cuda.empty_cache()

    def wake(self) -> None:
        """Undo `sleep`; caches are empty.

        Raises:
            torch.OutOfMemoryError: the device has no room now; it may be called again.
        """
        if self._parked is not None:
            self._parked.restore()
            self._cache = self.decoder.new_cache(self.limits.num_blocks, self.limits.block_size)
            self._parked = None

    @property
    def num_encoded(self) -> int:
        """Media items that an encoder has been run for."""
        return self._encoding.num_encoded if self._encoding is not None else 0

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self.scheduler.running or self.scheduler.waiting or (self._encoding and self._encoding.busy))

    @torch.inference_mode()
    def step(self) -> StepResult:
        """Advance all scheduled sequences by one step; new tokens are appended to their sequences."""
        self.num_steps += 1
        scheduled = self.scheduler.schedule(self.encoder_cache)
        result = StepResult()
        self._encode(scheduled, result)
        if scheduled.num_new:
            started = time.monotonic()
            self._run(scheduled.num_new, result)
            self._step_s += 0.2 * (time.monotonic() - started - self._step_s)
        return result

    def _run(self, num_new: dict[Sequence, int], result: StepResult) -> None:
        """Forward and sample. If that fails, halve the batch until the one it fails for is found.

        A failed attempt leaves nothing behind: what it wrote into the KV cache is written again.
        """
        try:
            step, sampling = self._build(num_new)
            with self.team.at_work("tokens", len(step.token_ids)):
                logits = self.decoder.forward(step, self._cache)
                sampled = sample(logits, sampling) if sampling else []
        except Exception:
            if len(num_new) == 1:
                log.exception("The engine failed on one sequence")
                result.failed += num_new
                return
            items = list(num_new.items())
            for half in (items[: len(items) // 2], items[len(items) // 2 :]):
                self._run(dict(half), result)
            return
        for sequence, count in num_new.items():
            self.scheduler.computed(sequence, count)
            self.num_computed_tokens += count
        for sequence, token in zip(sampling, sampled, strict=True):
            sequence.token_ids.append(token.token_id)
            result.tokens.append((sequence, token))

    def _encode(self, scheduled: Scheduled, result: StepResult) -> None:
        if self._encoding is None:
            return
        try:
            if not self._encoding.busy and scheduled.wanted:
                self._encoding.start(_inputs(scheduled.wanted))
            self._encoding.run(self.limits.encoder_share * self._step_s if scheduled.num_new else None)
        except Exception:
            log.exception("The encoder failed")
            keys = self._encoding.give_up()
            waits = (*self.scheduler.running, *self.scheduler.waiting)
            result.failed += [s for s in waits if any(span.key in keys for span in s.prompt.spans)]
            for sequence in result.failed:
                scheduled.num_new.pop(sequence, None)

    def _build(self, num_new: dict[Sequence, int]) -> tuple[Step, list[Sequence]]:
        """Flatten the scheduled tokens of all sequences into one Step."""
        ids: list[int] = []
        positions: list[np.ndarray] = []
        rope_rows: list[int] = []
        layout: list[tuple[int, int, SequenceOf[int]]] = []
        sampling: list[Sequence] = []
        logit_rows: list[int] = []
        media_rows: list[np.ndarray] = []
        features: list[torch.Tensor] = []
        for sequence, count in num_new.items():
            start, end, row = sequence.num_computed, sequence.num_computed + count, len(ids)
            ids += sequence.token_ids[start:end]
            positions.append(sequence.positions(start, end))
            rope_rows += [sequence.rope_row] * count
            layout.append((start, count, sequence.blocks))
            for span in sequence.prompt.spans:
                first, last = max(start, span.offset), min(end, span.offset + span.length)
                if first < last:
                    slots, encoded = span.layout.slots(first - span.offset, last - span.offset)
                    media_rows.append(slots + span.offset - start + row)
                    features.append(self.encoder_cache.get(span.key)[encoded])  # (num_slots, features)
            if end == len(sequence.token_ids):
                sampling.append(sequence)
                logit_rows.append(row + count - 1)
        device = self.decoder.device
        step = Step(
            token_ids=torch.tensor(ids).to(device),
            positions=torch.from_numpy(np.concatenate(positions, -1)).to(device),
            plan=make_plan(layout, self.limits.block_size, self.decoder.dtype, device),
            logit_rows=torch.tensor(logit_rows, dtype=torch.int64).to(device),
            rope_rows=torch.tensor(rope_rows).to(device) if any(rope_rows) else None,
            adapters=group_rows([(sequence.prompt.lora, count) for sequence, count in num_new.items()], device),
            logit_adapters=group_rows([(sequence.prompt.lora, 1) for sequence in sampling], device),
            media_rows=torch.from_numpy(np.concatenate(media_rows)).to(device) if media_rows else None,
            media_features=torch.cat(features) if features else None,
        )
        return step, sampling


def _inputs(wanted: dict[bytes, tuple[Sequence, MediaSpan]]) -> list[tuple[bytes, EncoderInput, Lora | None]]:
    """Items with the adapter that changes their encoder, if their owner's does."""
    result: list[tuple[bytes, EncoderInput, Lora | None]] = []
    for key, (owner, span) in wanted.items():
        item, lora = owner.prompt.inputs[owner.prompt.spans.index(span)], owner.prompt.lora
        if item is not None:
            result.append((key, item, lora if lora and item.encoder in lora.parts else None))
    return result


def _scheduler(limits: EngineLimits) -> Scheduler:
    return Scheduler(
        BlockPool(limits.num_blocks),
        limits.block_size,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_mixed_tokens=limits.max_mixed_tokens,
        prefix_caching=limits.prefix_caching,
    )
