"""A fixed number of learned queries look once at all patches of a slice: how Qwen-VL and MiniCPM-V make slots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from sensorium.model.encoders.patch_grid import Run
from sensorium.model.encoders.vit_layers import Norm, take_linear
from sensorium.model.linear import Linear
from sensorium.model.taker import Taker


class Resampler:
    """One cross-attention, from `num_queries` queries to the patches of each slice, whose keys know their place.

    Args:
        take: hands out the tensors named `resampler.*`.
        num_queries: rows per slice.
        num_heads: of the attention.
        width: of queries and of the result.
        kv_width: of the patches.
        query_places: (num_queries, width) added to the queries, if these have places too (Qwen-VL).
    """

    def __init__(
        self,
        take: Taker,
        num_queries: int,
        num_heads: int,
        width: int,
        kv_width: int,
        query_places: torch.Tensor | None = None,
    ) -> None:
        self._heads, self._width = num_heads, width
        self._kv = take_linear(take, "resampler.kv_proj", width, kv_width, bias=False) if kv_width != width else None
        self._kv_norm = Norm("layer", take, "resampler.ln_kv", width)
        weights = take("resampler.attn.in_proj_weight", 3 * width, width).view(3, width, width)
        biases = take("resampler.attn.in_proj_bias", 3 * width).view(3, width)
        query = Norm("layer", take, "resampler.ln_q", width)(take("resampler.query", num_queries, width))
        query = query if query_places is None else query + query_places
        self._queries = self._by_head(F.linear(query, weights[0], biases[0])[None])  # the same for every slice
        self._key, self._value = (Linear(weights[i], biases[i]) for i in (1, 2))
        self._out = take_linear(take, "resampler.attn.out_proj", width, width)
        self._out_norm = Norm("layer", take, "resampler.ln_post", width)
        self._proj = Linear(take("resampler.proj", width, width).T.contiguous())

    def __call__(self, x: torch.Tensor, places: torch.Tensor, runs: Sequence[Run]) -> torch.Tensor:
        """Look at each slice.

        Args:
            x: (num_patches, kv_width), slice after slice.
            places: (num_patches, width), added to the patches where they are keys.
            runs: (count, length): so many slices in a row have this number of patches.

        Returns:
            (num_slices, num_queries, width).
        """
        values = self._kv_norm(x if self._kv is None else self._kv(x))  # (num_patches, width)
        keys, values = self._key(values + places.to(values.dtype)), self._value(values)
        results, start = [], 0
        for count, length in runs:
            part = slice(start, start + count * length)
            k, v = (self._by_head(each[part].view(count, length, self._width)) for each in (keys, values))
            seen = F.scaled_dot_product_attention(self._queries.expand(count, -1, -1, -1), k, v)
            results.append(seen.transpose(1, 2).flatten(2))  # (count, num_queries, width)
            start = part.stop
        out = self._out(torch.cat(results).flatten(0, 1))  # (num_slices * num_queries, width)
        return self._proj(self._out_norm(out)).view(-1, self._queries.shape[2], self._width)

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        """(count, length, width) -> (count, num_heads, length, head_dim)."""
        return x.view(*x.shape[:2], self._heads, -1).transpose(1, 2)


def place_codes(rows: int, columns: int, width: int, device: torch.device) -> torch.Tensor:
    """Return (rows * columns, width) fp32: sines and cosines of a patch's column, then those of its row.

    Source: MAE, arXiv:2111.06377, `get_2d_sincos_pos_embed`.
    """
    quarter = width // 4
    rates = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float32, device=device) / quarter)
    angles = torch.arange(max(rows, columns), dtype=torch.float32, device=device)[:, None] * rates
    codes = torch.cat([angles.sin(), angles.cos()], dim=1)  # (places, width / 2)
    across, down = codes[:columns], codes[:rows]
    return torch.cat([across.repeat(rows, 1), down.repeat_interleave(columns, 0)], dim=1)
