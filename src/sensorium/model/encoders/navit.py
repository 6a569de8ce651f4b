"""MiniCPM-V's vision tower: SigLIP over slices of any size, patch by patch, and a resampler.

Slices are neither padded nor masked: those of one number of patches attend together, and each gives what it gives
alone. The authors pad a batch and mask the padding, which is the same, except in 2.5: there `batch_vision_input`
places and attends to the padding too, so that a slice's features depend on what it happens to be batched with. Ours
are those of 2.5 without `batch_vision_input`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from sensorium.model.encoders.navit_config import NavitConfig
from sensorium.model.encoders.patch_grid import Run
from sensorium.model.encoders.portions import portions
from sensorium.model.encoders.resampler import Resampler, place_codes
from sensorium.model.encoders.vit_layers import AttentionLayout, Norm, activation, attend, take_linear
from sensorium.model.linear import Linear
from sensorium.model.taker import Taker

if TYPE_CHECKING:
    from sensorium.families.family import EncoderInput

_Size = tuple[int, int]  # (rows, columns) of a slice, in patches


class Navit:
    """The tower. Items bring `pixel_values`, (num_patches, 3 * patch_size^2), and `tgt_sizes`, (num_slices, 2).

    Args:
        config: shapes and flags.
        dtype: of the weights and of the features.
        device: where it runs.
    """

    def __init__(self, config: NavitConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.config = config
        self.out_features = config.out_hidden_size
        self._dtype, self._device = dtype, device

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the tower's tensors; names as in the checkpoint, `vpm.*` and `resampler.*`."""
        config, take = self.config, Taker(weights, "vision tower")
        hidden, size = config.hidden_size, config.patch_size
        kernel = take("vpm.embeddings.patch_embedding.weight", hidden, 3, size, size)
        bias = take("vpm.embeddings.patch_embedding.bias", hidden)
        self._patch_embed = Linear(kernel.reshape(hidden, -1), bias)  # stride = kernel: a convolution is a product
        self._table = take("vpm.embeddings.position_embedding.weight", config.positions**2, hidden)
        self._layers = [_Layer(config, take, f"vpm.encoder.layers.{index}.") for index in range(config.depth)]
        self._norm = Norm("layer", take, "vpm.post_layernorm", hidden)
        self._resampler = Resampler(
            take, config.num_queries, config.num_query_heads, config.out_hidden_size, kv_width=hidden
        )
        take.check_empty()
        self.sites = take.sites

    def encode(self, items: Sequence[EncoderInput]) -> Iterator[list[torch.Tensor] | None]:
        """Yield None after every layer of a portion, and at last one (num_slots, out_features) tensor per item."""
        sizes: list[list[_Size]] = [
            [(rows, columns) for rows, columns in i.tensors["tgt_sizes"].tolist()] for i in items
        ]
        flat = [size for of_item in sizes for size in of_item]
        pixels = [
            part
            for item, of_item in zip(items, sizes, strict=True)
            for part in torch.split(item.tensors["pixel_values"], [rows * columns for rows, columns in of_item])
        ]
        # Slices of one length next to each other: their attention is one call.
        order = sorted(range(len(flat)), key=lambda i: flat[i][0] * flat[i][1])
        found: list[torch.Tensor] = []
        for part in portions([flat[i][0] * flat[i][1] for i in order]):
            some = [flat[i] for i in order[part]]
            lengths = [rows * columns for rows, columns in some]
            runs: list[Run] = [(len(list(same)), length) for length, same in groupby(lengths)]
            values = torch.cat([pixels[i] for i in order[part]]).to(self._device, self._dtype)
            places = torch.cat([self._places(size) for size in some]).to(self._device)  # (num_patches,)
            x = self._patch_embed(values) + self._table[places]  # (num_patches, hidden_size)
            for layer in self._layers:
                x = layer(x, AttentionLayout(runs))
                yield None
            codes = torch.cat([place_codes(*size, self.out_features, x.device) for size in some])
            found.append(self._resampler(self._norm(x), codes, runs))  # (num_slices, num_queries, out_features)
        rows = torch.cat(found)
        back = torch.empty(len(order), dtype=torch.int64)
        back[order] = torch.arange(len(order))
        whole = rows[back.to(self._device)].flatten(0, 1)
        outputs = torch.split(whole, [item.layout.num_slots for item in items])
        # A cache may keep one of several without all the others.
        yield [output.clone() for output in outputs] if len(outputs) > 1 else list(outputs)

    def _places(self, size: _Size) -> torch.Tensor:
        """Return (rows * columns,) int64: where in the position table a slice's patches are."""
        rows, columns = (1, size[0] * size[1]) if self.config.in_one_row else size
        side = self.config.positions
        return (buckets(rows, side)[:, None] * side + buckets(columns, side)).flatten()


def buckets(count: int, side: int) -> torch.Tensor:
    """Spread `count` patches over the `side` places of the position table's axis: (count,) int64.

    Where a patch falls on the border of two places, rounding decides; so every step, down to the dtype, is that of
    the authors' `modeling_navit_siglip.py`. Idefics2 in today's transformers and vLLM round otherwise: for one count
    in six, some patch has another place there.
    """
    borders = torch.arange(1 / side, 1.0, 1 / side)
    step = float(1 / torch.tensor(count, dtype=torch.int32))  # rounded to float32
    return torch.bucketize(torch.arange(0, 1 - 1e-6, step), borders, right=True)


class _Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: NavitConfig, take: Taker, prefix: str) -> None:
        hidden, attention = config.hidden_size, prefix + "self_attn."
        self._heads = config.num_heads
        self._norm1 = Norm("layer", take, prefix + "layer_norm1", hidden)
        self._norm2 = Norm("layer", take, prefix + "layer_norm2", hidden)
        qkv = Linear(
            torch.cat([take(f"{attention}{name}_proj.weight", hidden, hidden) for name in "qkv"]),
            torch.cat([take(f"{attention}{name}_proj.bias", hidden) for name in "qkv"]),
        )
        self._qkv = take.sites.place(qkv, {f"{attention}{name}_proj": hidden for name in "qkv"})
        self._out = take_linear(take, attention + "out_proj", hidden, hidden)
        self._inner = take_linear(take, prefix + "mlp.fc1", config.intermediate_size, hidden)
        self._last = take_linear(take, prefix + "mlp.fc2", hidden, config.intermediate_size)
        self._act = activation(config.hidden_act)

    def __call__(self, x: torch.Tensor, layout: AttentionLayout) -> torch.Tensor:
        """(num_patches, hidden_size) -> the same."""
        qkv = self._qkv(self._norm1(x)).view(x.shape[0], 3, self._heads, -1)
        x = self._out.plus(attend(qkv, layout), x)
        return self._last.plus(self._act(self._inner, self._norm2(x)), x)
