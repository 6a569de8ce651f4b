"""Packed and plain linears give the same, fused steps included."""

from __future__ import annotations

import pytest
import torch

from sensorium.model import linear
from sensorium.model.linear import Linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 33])
@pytest.mark.parametrize("biased", [False, True])
def test_fused_steps(dtype: torch.dtype, rows: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = (torch.randn(48, 64, generator=generator) / 8).to(dtype)
    bias = torch.randn(48, generator=generator).to(dtype) if biased else None
    x = torch.randn(rows, 64, generator=generator).to(dtype)
    other = torch.randn(rows, 48, generator=generator).to(dtype)
    layer = Linear(weight, bias)
    plain = x.double() @ weight.double().t() + (bias.double() if bias is not None else 0)
    tolerance = {"atol": 0.06, "rtol": 0.02} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(layer(x).double(), plain, **tolerance)
    torch.testing.assert_close(layer.silu(x).double(), torch.nn.functional.silu(plain), **tolerance)
    torch.testing.assert_close(layer.times(x, other).double(), plain * other.double(), **tolerance)
    torch.testing.assert_close(layer.plus(x, other).double(), plain + other.double(), **tolerance)


def test_bf16_is_packed_where_the_machine_can(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.eye(32, dtype=torch.bfloat16)
    assert Linear(weight).packed == linear.can_pack()
    monkeypatch.setattr(linear, "can_pack", lambda: False)
    fallback = Linear(weight)
    assert not fallback.packed
    x = torch.arange(32, dtype=torch.bfloat16)[None]
    assert torch.equal(fallback.plus(x, x), 2 * x)
