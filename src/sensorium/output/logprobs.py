"""Token log probabilities as the answer shows them."""

from __future__ import annotations

from collections.abc import Sequence

from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import PositionLogprobs, TokenLogprob

Entry = tuple[int, float, int]  # token id, log probability, rank (1: likeliest)


def position_logprobs(tokenizer: Tokenizer, chosen: Entry, top: Sequence[Entry] = ()) -> PositionLogprobs:
    """Name the tokens of one position: the chosen one and its likeliest alternatives."""
    return PositionLogprobs(_named(tokenizer, chosen), [_named(tokenizer, entry) for entry in top])


def _named(tokenizer: Tokenizer, entry: Entry) -> TokenLogprob:
    token_id, logprob, rank = entry
    data = tokenizer.token_bytes(token_id)
    return TokenLogprob(token_id, data.decode("utf-8", "replace"), logprob, rank, data)
