"""One choice of one request while the engine works on it."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sensorium.families.family import EncoderInput, MediaSpan
from sensorium.types import FinishReason, MediaUse, SamplingParams

if TYPE_CHECKING:
    from sensorium.model.lora import Lora


@dataclass(frozen=True)
class Prompt:
    """A request's prompt as the engine wants it.

    Attributes:
        token_ids: with every media item expanded to its layout's tokens.
        spans: where media items lie, in order.
        inputs: `inputs[i]` belongs to `spans[i]`; None where the encoder output was cached already.
        positions: (3, len(token_ids)) int64 for M-RoPE, None for 1-d positions.
        position_delta: token i behind the prompt has position i + position_delta.
        cache_salt: prompts with different salts share no blocks.
        media: what became of the request's media items; for the one who asks, not for the engine.
        lora: the adapter that the request wants; `cache_salt` and the media keys that it changes tell of it.
    """

    token_ids: list[int]
    spans: tuple[MediaSpan, ...] = ()
    inputs: tuple[EncoderInput | None, ...] = ()
    positions: npt.NDArray[np.int64] | None = None
    position_delta: int = 0
    cache_salt: str = ""
    media: tuple[MediaUse, ...] = ()
    lora: Lora | None = None


@dataclass(eq=False)
class Sequence:
    """State of one choice. `token_ids` are prompt and output; the first `num_computed` are in the KV cache."""

    id: tuple[str, int]  # request id, choice index
    prompt: Prompt
    sampling: SamplingParams
    max_tokens: int
    stop_token_ids: frozenset[int]  # eos unless ignored, and the request's own
    seed: int
    bad_words: tuple[tuple[int, ...], ...] = ()
    rope_row: int = 0  # `model.rope.prompt_table`; set when the engine takes the sequence
    token_ids: list[int] = field(default_factory=list)
    num_computed: int = 0
    blocks: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    num_cached: int = 0  # prompt tokens found in the prefix cache at first admission
    admitted: bool = False
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None

    def __post_init__(self) -> None:
        self.token_ids = list(self.prompt.token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - len(self.prompt.token_ids)

    @property
    def num_left(self) -> int:
        """Tokens whose keys and values are not computed yet; 1 for a sequence that is decoding."""
        return len(self.token_ids) - self.num_computed

    def positions(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """(3, end - start) or (end - start,) positions of tokens [start, end), generated ones included."""
        known = self.prompt.positions
        if known is None:
            return np.arange(start, end, dtype=np.int64)
        tail = np.arange(max(start, known.shape[1]), end, dtype=np.int64) + self.prompt.position_delta
        return np.concatenate((known[:, start:end], np.broadcast_to(tail, (3, len(tail)))), axis=1)

    def hashes_up_to(self, num_blocks: int, block_size: int) -> SequenceOf[bytes]:
        """Hashes of the first `num_blocks` full blocks, each over all tokens and media up to its end.

        A block's hash covers the block before it, its token ids, and for every media item that reaches into it
        the item's content key and where it lies: equal placeholder ids of two pictures never match. Keys that were
        turned with other rotary frequencies are other keys, so the first hash also covers `rope_row`.
        """
        salt = self.prompt.cache_salt.encode()
        while len(self.block_hashes) < num_blocks:
            index = len(self.block_hashes)
            start, end = index * block_size, (index + 1) * block_size
            before = self.block_hashes[-1] if self.block_hashes else bytes([self.rope_row]) + salt
            digest = blake2b(len(before).to_bytes(4, "little") + before, digest_size=16)
            digest.update(np.asarray(self.token_ids[start:end], dtype=np.int32).tobytes())
            for span in self.prompt.spans:
                if span.offset < end and span.offset + span.length > start:
                    digest.update(span.key + (span.offset - start).to_bytes(8, "little", signed=True))
            self.block_hashes.append(digest.digest())
        return self.block_hashes[:num_blocks]
