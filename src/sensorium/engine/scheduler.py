"""Which tokens run in the next step. Bookkeeping only: no torch, no clock.

One token budget a step. Sequences that are decoding come first (one token each), then prompts that are under
way, then waiting ones, first come first served; a prompt is cut into chunks that fill what is left. When blocks
run out the newest sequence is preempted: it gives its blocks back and is computed again later, finding most of
them in the prefix cache. A chunk ends before the first media item whose encoder output is not there yet, and
the item is reported as wanted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field

from sensorium.engine.blocks import BlockPool
from sensorium.engine.sequence import Sequence
from sensorium.families.family import MediaSpan


@dataclass
class Scheduled:
    """A step: how many tokens of which sequences, and which media items hold others back."""

    num_new: dict[Sequence, int] = field(default_factory=dict)
    wanted: dict[bytes, tuple[Sequence, MediaSpan]] = field(default_factory=dict)

    @property
    def has_decodes(self) -> bool:
        """Whether somebody's next token would wait for whatever else this step does."""
        return any(sequence.num_left == 1 and sequence.num_output_tokens for sequence in self.num_new)


class Scheduler:
    """Owns the queues and the block tables.

    Args:
        pool: KV cache blocks.
        block_size: tokens per block.
        max_num_seqs: sequences that run at once.
        max_num_batched_tokens: token budget of a step.
        max_mixed_tokens: budget of a step in which somebody decodes, so that a long prompt delays the next
            token of others by a bounded time.
        prefix_caching: look prompts up in the pool's hashed blocks.
    """

    def __init__(
        self,
        pool: BlockPool,
        block_size: int,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_mixed_tokens: int,
        prefix_caching: bool,
    ) -> None:
        self.pool = pool
        self.block_size = block_size
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_mixed_tokens = max_mixed_tokens
        self.prefix_caching = prefix_caching
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preemptions = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or aborted sequence, in whatever state it is; its blocks are free at once."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._free(sequence)

    def schedule(self, encoded: Container[bytes]) -> Scheduled:
        """Plan the next step. `encoded` holds the keys of media items whose encoder output is there."""
        step = Scheduled()
        budget = self.max_num_batched_tokens
        for sequence in [s for s in self.running if s.num_left == 1]:
            if budget and sequence in self.running:
                budget -= self._give(step, sequence, 1, encoded)
        if step.num_new:
            budget = min(budget, max(1, self.max_mixed_tokens - len(step.num_new)))
        for sequence in [s for s in self.running if s.num_left > 1]:
            if budget and sequence in self.running:
                budget -= self._give(step, sequence, budget, encoded)
        self._admit(step, budget, encoded)
        return step

    def computed(self, sequence: Sequence, num_new: int) -> None:
        """Note that `num_new` more tokens of `sequence` are in the KV cache."""
        sequence.num_computed += num_new
        if self.prefix_caching:
            full = sequence.num_computed // self.block_size
            done = (sequence.num_computed - num_new) // self.block_size
            hashes = sequence.hashes_up_to(full, self.block_size)
            for index in range(done, full):
                self.pool.remember(sequence.blocks[index], hashes[index])

    def _give(self, step: Scheduled, sequence: Sequence, budget: int, encoded: Container[bytes]) -> int:
        """Schedule up to `budget` tokens of a running sequence; return how many."""
        num_new = self._encoded_length(step, sequence, min(sequence.num_left, budget), encoded)
        if not num_new or not self._grow(step, sequence, sequence.num_computed + num_new):
            return 0
        step.num_new[sequence] = num_new
        return num_new

    def _admit(self, step: Scheduled, budget: int, encoded: Container[bytes]) -> None:
        blocked: list[Sequence] = []  # ready but for an encoder output: those behind them may pass
        while self.waiting and budget and len(self.running) < self.max_num_seqs:
            sequence = self.waiting.popleft()
            found = self._match_prefix(sequence)
            # All blocks of the prompt, so that admitting it does not preempt it again a few chunks later.
            needed = -(-len(sequence.token_ids) // self.block_size) - len(found)
            available = self.pool.num_free - sum(self.pool.is_free(block) for block in found)
            if needed > available:
                self.waiting.appendleft(sequence)
                break
            sequence.num_computed = len(found) * self.block_size
            num_new = self._encoded_length(step, sequence, min(sequence.num_left, budget), encoded)
            if not num_new:
                sequence.num_computed = 0
                blocked.append(sequence)
                continue
            for block in found:
                self.pool.take(block)
            sequence.blocks = found
            if not sequence.admitted:
                sequence.admitted = True
                sequence.num_cached = sequence.num_computed
            self.running.append(sequence)
            self._grow(step, sequence, sequence.num_computed + num_new)
            step.num_new[sequence] = num_new
            budget -= num_new
        self.waiting.extendleft(reversed(blocked))

    def _match_prefix(self, sequence: Sequence) -> list[int]:
        """Blocks that already hold the beginning of the sequence; its last token is always computed."""
        found: list[int] = []
        if self.prefix_caching:
            for block_hash in sequence.hashes_up_to((len(sequence.token_ids) - 1) // self.block_size, self.block_size):
                block = self.pool.find(block_hash)
                if block is None:
                    break
                found.append(block)
        return found

    def _encoded_length(self, step: Scheduled, sequence: Sequence, num_new: int, encoded: Container[bytes]) -> int:
        """Cut a chunk before the first media item that is not encoded yet, and ask for the items it would need.

        When nobody else has anything to compute, the sequence waits for the encoder instead: a step for the few
        tokens before the picture would read all weights for them.
        """
        start = sequence.num_computed
        end = start + num_new
        for span in sequence.prompt.spans:
            if span.offset < end and span.offset + span.length > start and span.key not in encoded:
                step.wanted.setdefault(span.key, (sequence, span))
                num_new = min(num_new, max(0, span.offset - start) if step.num_new else 0)
        return num_new

    def _grow(self, step: Scheduled, sequence: Sequence, num_tokens: int) -> bool:
        """Give `sequence` blocks for `num_tokens`, preempting the newest if needed; False: it was itself."""
        missing = -(-num_tokens // self.block_size) - len(sequence.blocks)
        while self.pool.num_free < missing:
            victim = self.running.pop()
            step.num_new.pop(victim, None)
            self._free(victim)
            self.waiting.appendleft(victim)
            self.num_preemptions += 1
            if victim is sequence:
                return False
        sequence.blocks.extend(self.pool.allocate() for _ in range(missing))
        return True

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.num_computed = 0
