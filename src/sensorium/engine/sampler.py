"""From logits to the next token of each sequence.

A row's outcome depends on its own logits, its own history and its own seed alone: the random number for output
token i of a sequence is a hash of (seed, i), so the same seed gives the same text whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch

from sensorium.engine.sequence import Sequence

_GREEDY_BELOW = 1e-5  # as in vLLM; logits that are divided by less are no numbers soon
_NUM_CANDIDATES = 1024  # top_p looks at this many first; nearly always enough, and 20 times cheaper than a sort


@dataclass(frozen=True)
class Sampled:
    """One new token. With `logprobs` asked for: its log probability, rank, and the likeliest (id, logprob)s."""

    token_id: int
    logprob: float | None = None
    rank: int = 0
    top: tuple[tuple[int, float], ...] = ()


def sample(logits: torch.Tensor, sequences: SequenceOf[Sequence]) -> list[Sampled]:
    """Pick one token per row.

    Args:
        logits: (num_sequences, vocab_size), any float dtype; changed in place.
        sequences: whose row each is.
    """
    if all(_is_plain_greedy(sequence) for sequence in sequences):
        return [Sampled(token_id) for token_id in _likeliest(logits).tolist()]
    return [_sample_row(row, sequence) for row, sequence in zip(logits.float(), sequences, strict=True)]


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The same as logits.argmax(-1), (num_sequences,), six times faster for bf16 on a CPU.

    There argmax goes value by value while amax takes whole vectors: so first the best group of a row, then the best
    place in that group.
    """
    rows, vocab_size = logits.shape
    size = next(size for size in (128, 64, 32, 16, 1) if vocab_size % size == 0)
    if size == 1 or logits.device.type != "cpu":
        return logits.argmax(-1)
    grouped = logits.view(rows, -1, size)
    group = grouped.amax(-1).argmax(-1)  # (num_sequences,)
    return group * size + grouped[torch.arange(rows), group].argmax(-1)


def _is_plain_greedy(sequence: Sequence) -> bool:
    params = sequence.sampling
    return params.temperature < _GREEDY_BELOW and params.logprobs is None and not _is_adjusted(sequence)


def _is_adjusted(sequence: Sequence) -> bool:
    params = sequence.sampling
    return bool(
        params.repetition_penalty != 1
        or params.presence_penalty
        or params.frequency_penalty
        or params.logit_bias
        or sequence.bad_words
        or sequence.num_output_tokens < params.min_tokens
    )


def _sample_row(row: torch.Tensor, sequence: Sequence) -> Sampled:
    params = sequence.sampling
    # Log probabilities are those of the model, before penalties and temperature.
    raw = torch.log_softmax(row, -1) if params.logprobs is not None else None  # (vocab_size,)
    if _is_adjusted(sequence):
        _adjust(row, sequence)
    token_id = int(row.argmax()) if params.temperature < _GREEDY_BELOW else _draw(row, sequence)
    if raw is None:
        return Sampled(token_id)
    logprob = float(raw[token_id])
    top = raw.topk(params.logprobs) if params.logprobs else None
    alternatives = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return Sampled(token_id, logprob, int((raw > logprob).sum()) + 1, alternatives)


def _adjust(row: torch.Tensor, sequence: Sequence) -> None:
    """Apply penalties, biases and bans in place, in vLLM's order."""
    params = sequence.sampling
    output = sequence.token_ids[sequence.num_prompt_tokens :]
    if sequence.num_output_tokens < params.min_tokens:
        # A client may name stop ids of another vocabulary; those can never be drawn.
        row[[token_id for token_id in sequence.stop_token_ids if 0 <= token_id < row.shape[0]]] = float("-inf")
    for token_id, bias in (params.logit_bias or {}).items():
        row[token_id] += bias
    for word in sequence.bad_words:
        if len(word) == 1 or tuple(output[1 - len(word) :]) == word[:-1]:
            row[word[-1]] = float("-inf")
    if params.repetition_penalty != 1:
        seen = torch.from_numpy(np.unique(np.asarray(sequence.token_ids))).to(row.device)
        scores = row[seen]
        factor = params.repetition_penalty
        row[seen] = torch.where(scores > 0, scores / factor, scores * factor)
    if output and (params.presence_penalty or params.frequency_penalty):
        ids, counts = np.unique(np.asarray(output), return_counts=True)
        penalty = params.presence_penalty + params.frequency_penalty * counts
        row[torch.from_numpy(ids).to(row.device)] -= torch.from_numpy(penalty).to(row)


def _draw(row: torch.Tensor, sequence: Sequence) -> int:
    params = sequence.sampling
    point = _uniform(sequence.seed, sequence.num_output_tokens)
    row = row / params.temperature
    if 0 < params.top_k < row.shape[0]:
        values, ids = row.topk(params.top_k)
        return _draw_sorted(torch.softmax(values.double(), -1), ids, sequence, point)
    if params.top_p < 1 or params.min_p > 0:
        total = row.double().logsumexp(-1)
        values, ids = row.topk(min(_NUM_CANDIDATES, row.shape[0]))
        probabilities = (values.double() - total).exp()
        if probabilities.sum() < params.top_p and probabilities[-1] >= params.min_p * probabilities[0]:
            values, ids = row.sort(descending=True)
            probabilities = (values.double() - total).exp()
        return _draw_sorted(probabilities, ids, sequence, point)
    cumulative = torch.softmax(row.double(), -1).cumsum(-1)  # (vocab_size,)
    return _index_at(cumulative, point)


def _draw_sorted(probabilities: torch.Tensor, ids: torch.Tensor, sequence: Sequence, point: float) -> int:
    """Draw from candidates in descending order after min_p and top_p have cut their tail."""
    params = sequence.sampling
    keep = probabilities >= params.min_p * probabilities[0]
    before = probabilities.cumsum(-1) - probabilities
    keep &= before < params.top_p
    keep[0] = True
    return int(ids[_index_at((probabilities * keep).cumsum(-1), point)])


def _index_at(cumulative: torch.Tensor, point: float) -> int:
    """First index whose cumulative weight exceeds `point` of the total."""
    index = int(torch.searchsorted(cumulative, cumulative[-1:] * point, right=True))
    last = int(torch.searchsorted(cumulative, cumulative[-1:]))  # rounding must not lead past the last weight
    return min(index, last, cumulative.shape[0] - 1)


def _uniform(seed: int, index: int) -> float:
    """A number in [0, 1) that is a function of (seed, index) only."""
    digest = blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)
