"""The one vision transformer: Qwen2-VL, Qwen2.5-VL and Qwen3-VL; what they differ in is in VitConfig."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from sensorium.model.encoders import portions
from sensorium.model.encoders.patch_grid import Grid, frame_runs, interpolate, patch_coordinates, windows
from sensorium.model.encoders.vit_config import VitConfig
from sensorium.model.encoders.vit_layers import AttentionLayout, Layer, Merger
from sensorium.model.linear import Linear
from sensorium.model.taker import Taker

if TYPE_CHECKING:
    from sensorium.families.family import EncoderInput


@dataclass(frozen=True)
class _Batch:
    """Index tensors of one call: rows are patches, in the order in which the layers see them."""

    cos: torch.Tensor  # (num_patches, 1, 1, head_dim / 2) fp32
    sin: torch.Tensor
    full: AttentionLayout
    windowed: AttentionLayout | None = None
    order: torch.Tensor | None = None  # (num_tokens,) int64: tokens by window
    inverse: torch.Tensor | None = None  # (num_tokens,) int64: back to tokens by item


class _Piece(NamedTuple):
    """An item, or some frames of it."""

    item: int
    grid: Grid
    pixels: torch.Tensor  # (num_patches, channels * temporal_patch_size * patch_size^2)


def _pieces(number: int, item: EncoderInput) -> list[_Piece]:
    times, rows, columns = item.layout.grid
    each = max(1, portions.MOST_ROWS // (rows * columns))
    counts = [min(each, times - start) for start in range(0, times, each)]
    split = torch.split(item.tensors["pixel_values"], [count * rows * columns for count in counts])
    return [_Piece(number, (count, rows, columns), part) for count, part in zip(counts, split, strict=True)]


class Vit:
    """Pixels in, decoder embeddings out; see `families.family.Encoder`.

    Args:
        config: shapes and flags.
        dtype: of weights and activations.
        device: where they are.
    """

    def __init__(self, config: VitConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.config = config
        self.out_features = config.out_hidden_size * (1 + len(config.deepstack_layers))
        self._dtype, self._device = dtype, device
        axis = config.hidden_size // config.num_heads // 2  # half of a head for rows, half for columns
        exponents = torch.arange(0, axis, 2, dtype=torch.float32) / axis
        self._inv_freq = (1.0 / config.rope_theta**exponents).to(device)  # (head_dim / 4,)

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the tower's tensors; names as in the checkpoint, without `visual.`."""
        config, take = self.config, Taker(weights, "vision tower")
        hidden, size = config.hidden_size, config.patch_size
        kernel = take("patch_embed.proj.weight", hidden, config.in_channels, config.temporal_patch_size, size, size)
        bias = take("patch_embed.proj.bias", hidden) if config.patch_bias else None
        self._patch_embed = Linear(kernel.reshape(hidden, -1), bias)  # stride = kernel: a convolution is a product
        self._table = take("pos_embed.weight", config.num_positions, hidden).float() if config.num_positions else None
        self._layers = [Layer(config, take, index) for index in range(config.depth)]
        self._merger = Merger(config, take, "merger")
        self._deepstack = {
            layer: Merger(config, take, f"deepstack_merger_list.{index}", norm_joined=True)
            for index, layer in enumerate(config.deepstack_layers)
        }
        take.check_empty()
        self.sites = take.sites

    def encode(self, items: Sequence[EncoderInput]) -> Iterator[list[torch.Tensor] | None]:
        """Yield None after every layer of a portion, and at last one (num_tokens, out_features) tensor per item."""
        pieces = [piece for number, item in enumerate(items) for piece in _pieces(number, item)]
        pieces.sort(key=lambda piece: math.prod(piece.grid[1:]))  # of one size: their attention is one call
        found: list[list[torch.Tensor]] = [[] for _ in items]
        for part in portions.portions([len(piece.pixels) for piece in pieces]):
            some = pieces[part]
            features = yield from self._run([piece.grid for piece in some], [piece.pixels for piece in some])
            for piece, rows in zip(some, features, strict=True):
                found[piece.item].append(rows)
        yield [parts[0] if len(parts) == 1 else torch.cat(parts) for parts in found]

    def _run(
        self, grids: Sequence[Grid], pixels: Sequence[torch.Tensor]
    ) -> Generator[None, None, Sequence[torch.Tensor]]:
        """Yield after every layer; return (num_tokens, out_features) per grid."""
        batch, x = self._start(grids, pixels)
        deepstack: list[torch.Tensor] = []
        for index, layer in enumerate(self._layers):
            windowed = batch.windowed is not None and index not in self.config.full_attention_layers
            layout = batch.windowed if windowed and batch.windowed is not None else batch.full
            x = layer(x, batch.cos, batch.sin, layout)  # (num_patches, hidden_size)
            if index in self._deepstack:
                deepstack.append(self._deepstack[index](x))
            yield None
        out = torch.cat([self._merger(x), *deepstack], dim=1)  # (num_tokens, out_features)
        if batch.inverse is not None:
            out = out[batch.inverse]
        parts = torch.split(out, [math.prod(grid) // self.config.merge_unit for grid in grids])
        # A cache may keep one of them without all the others.
        return [part.clone() for part in parts] if len(parts) > 1 else parts

    def _start(self, grids: Sequence[Grid], pixels: Sequence[torch.Tensor]) -> tuple[_Batch, torch.Tensor]:
        """Embed the patches and say where they are: the batch's indices and (num_patches, hidden_size)."""
        merge = self.config.spatial_merge_size
        values = pixels[0] if len(pixels) == 1 else torch.cat(list(pixels))
        x = self._patch_embed(values.to(self._device, self._dtype))
        coordinates = patch_coordinates(grids, merge)
        if self._table is not None:
            rows, weights = interpolate(coordinates, grids, round(self.config.num_positions**0.5))
            places = F.embedding_bag(
                torch.from_numpy(rows).to(self._device),
                self._table,
                per_sample_weights=torch.from_numpy(weights).to(self._device),
                mode="sum",
            )
            x += places.to(self._dtype)
        places_hw = torch.from_numpy(coordinates).to(self._device, torch.float32)
        if not self.config.window_size:
            return _Batch(*self._rope(places_hw), full=AttentionLayout(frame_runs(grids))), x
        window = self.config.window_size // merge // self.config.patch_size
        token_order, window_runs = windows(grids, merge, window)
        order = torch.from_numpy(token_order).to(self._device)
        inverse = torch.argsort(order)
        unit = torch.arange(self.config.merge_unit, device=self._device)
        patch_order = (order[:, None] * self.config.merge_unit + unit).view(-1)
        patch_inverse = (inverse[:, None] * self.config.merge_unit + unit).view(-1)
        cos, sin = self._rope(places_hw[patch_order])
        # Rows stay sorted by window; the few layers that see whole images put them back for their attention.
        full = AttentionLayout(frame_runs(grids), patch_inverse, patch_order)
        return _Batch(cos, sin, full, AttentionLayout(window_runs), order, inverse), x[patch_order]

    def _rope(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(num_patches, 2) fp32 rows and columns -> cos and sin, (num_patches, 1, 1, head_dim / 2) fp32."""
        angles = (places[:, :, None] * self._inv_freq).flatten(1)  # (num_patches, head_dim / 2): rows, then columns
        return angles.cos()[:, None, None], angles.sin()[:, None, None]
