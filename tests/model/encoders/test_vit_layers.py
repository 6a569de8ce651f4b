"""Attention over segments, in the two ways it is computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sensorium.model.encoders.vit_layers import AttentionLayout, attend


@pytest.mark.parametrize("runs", [[(1, 700)], [(3, 64)], [(2, 256), (1, 300), (5, 16)]])
def test_bf16_is_fp32_within_rounding(runs: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(sum(count * length for count, length in runs), 3, 4, 32).bfloat16()
    layout = AttentionLayout(runs)
    rounded, exact = attend(qkv, layout).float(), attend(qkv.float(), layout)
    assert (rounded - exact).abs().max() < 0.02
    assert F.cosine_similarity(rounded, exact).min() > 0.9995
