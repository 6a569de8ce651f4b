"""Decode attention in one fused call and in three plain steps gives the same as attending without any cache."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sensorium.model import attention

HEADS, KV_HEADS, DIM, BLOCK = 6, 2, 8, 16


def plainly(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One query (heads, dim) over (length, kv_heads, dim)."""
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, 1).transpose(0, 1) for x in (k, v))  # (heads, length, dim)
    return F.scaled_dot_product_attention(q[:, None], k, v)[:, 0].flatten()


@pytest.mark.parametrize("matmul_from", [0, 10**9])
def test_decode_rows_of_all_lengths_attend_to_their_own_past(matmul_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_MATMUL_FROM", matmul_from)
    generator = torch.Generator().manual_seed(3)
    lengths = [1, 15, 16, 17, 70, 300]
    past = [torch.randn(2, length + 1, KV_HEADS, DIM, generator=generator) for length in lengths]
    cache = torch.full((2, KV_HEADS, 64, BLOCK, DIM), 7.0)
    free = torch.randperm(63, generator=generator).add(1).tolist()
    tables = [[free.pop() for _ in range(length // BLOCK + 1)] for length in lengths]
    for (k, v), table, length in zip(past, tables, lengths, strict=True):
        for at in range(length):
            cache[0, :, table[at // BLOCK], at % BLOCK] = k[at]
            cache[1, :, table[at // BLOCK], at % BLOCK] = v[at]
    q = torch.randn(len(lengths), HEADS, DIM, generator=generator)
    plan = attention.make_plan(
        [(length, 1, table) for length, table in zip(lengths, tables, strict=True)],
        BLOCK,
        torch.float32,
        torch.device("cpu"),
    )
    new_k, new_v = (torch.stack([pair[i][-1] for pair in past]) for i in (0, 1))
    out = attention.attend(q, new_k, new_v, cache, plan)
    for row, (k, v) in enumerate(past):
        torch.testing.assert_close(out[row], plainly(q[row], k, v), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("context", [0, 5, 130])
@pytest.mark.parametrize("length", [2, 64, 65, 200])
def test_a_chunk_attends_to_its_context_and_to_itself_so_far(context: int, length: int) -> None:
    generator = torch.Generator().manual_seed(4)
    total = context + length
    k, v = torch.randn(2, total, KV_HEADS, DIM, generator=generator)
    q = torch.randn(length, HEADS, DIM, generator=generator)
    out = attention._chunk_by_matmul(q, k.transpose(0, 1), v.transpose(0, 1), context)
    for row in (0, 1, length // 2, length - 1):
        seen = context + row + 1
        torch.testing.assert_close(out[row], plainly(q[row], k[:seen], v[:seen]), atol=1e-5, rtol=1e-5)
