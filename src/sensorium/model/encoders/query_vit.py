"""Qwen-VL's vision tower: a ViT without a class token over squares of one size, and a resampler.

Source: `visual.py`, published with the checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sensorium.errors import ConfigurationError
from sensorium.model.encoders.resampler import Resampler
from sensorium.model.encoders.tile_vit import Layer, TileVitConfig
from sensorium.model.encoders.vit_layers import AttentionLayout, Norm
from sensorium.model.linear import Linear
from sensorium.model.taker import Taker

if TYPE_CHECKING:
    from sensorium.families.family import EncoderInput

_PLACES = 256  # rows of the position table, whatever the picture's size: they are spread over it
_HEAD_DIM = 128  # of the resampler


class QueryVit:
    """Squares in, decoder embeddings out; see `families.family.Encoder`.

    Items bring `pixel_values`, (1, 3, image_size, image_size) float32.

    Args:
        config: shapes of the layers and of what comes out; its fields about a projector do not count.
        num_queries: rows that a picture becomes, a square.
        dtype: of weights and activations.
        device: where they are.

    Raises:
        ConfigurationError: sizes do not fit each other.
    """

    def __init__(self, config: TileVitConfig, num_queries: int, dtype: torch.dtype, device: torch.device) -> None:
        if config.out_hidden_size % _HEAD_DIM or round(num_queries**0.5) ** 2 != num_queries:
            raise ConfigurationError(
                f"'visual' in config.json has output_dim {config.out_hidden_size} and n_queries {num_queries}; they "
                f"must be a multiple of {_HEAD_DIM} and a square."
            )
        self.config, self.num_queries = config, num_queries
        self.out_features = config.out_hidden_size
        self._dtype, self._device = dtype, device

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the tower's and the resampler's tensors."""
        c, hidden, out = self.config, self.config.hidden_size, self.config.out_hidden_size
        heads = {
            name: _by_part(tensor, c.num_heads)
            for name, tensor in weights.items()
            if ".attn.qkv." in name and len(tensor) == 3 * hidden  # of another size: Taker says so
        }
        take = Taker({**weights, **heads}, "vision tower")
        self._patch = Linear(take("patch.weight", hidden, 3, c.patch_size, c.patch_size).reshape(hidden, -1))
        self._positions = spread(take("positions", _PLACES, hidden), c.side)
        self._first_norm = Norm("layer", take, "first_norm", hidden, c.eps)
        self._layers = [Layer(c, take, f"layers.{index}.") for index in range(c.num_layers)]
        places = take("resampler.pos_embed", self.num_queries, out)
        self._places = spread(places, c.side)  # (side^2, out_hidden_size)
        self._resampler = Resampler(take, self.num_queries, out // _HEAD_DIM, out, hidden, places)
        take.check_empty()
        self.sites = take.sites
        for name in heads:
            self.sites.withdraw(name.removesuffix(".weight"))

    def encode(self, items: Sequence[EncoderInput]) -> Iterator[list[torch.Tensor] | None]:
        """Yield None after every layer, and at last one (num_queries, out_features) tensor per item."""
        pixels = torch.cat([item.tensors["pixel_values"] for item in items]).to(self._device, self._dtype)
        count, runs = len(items), [(len(items), self.config.side**2)]
        x = self._first_norm((self._patches(pixels) + self._positions).flatten(0, 1))
        for layer in self._layers:
            x = layer(x, AttentionLayout(runs))  # (count * num_patches, hidden_size)
            yield None
        rows = self._resampler(x, self._places.repeat(count, 1), runs)  # (count, num_queries, out_features)
        # A cache may keep one of them without all the others.
        yield [row.clone() for row in rows] if count > 1 else [rows[0]]

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """(count, 3, image_size, image_size) -> (count, num_patches, hidden_size)."""
        count, side, size = len(pixels), self.config.side, self.config.patch_size
        patches = pixels[:, :, : side * size, : side * size].reshape(count, 3, side, size, side, size)
        return self._patch(patches.permute(0, 2, 4, 1, 3, 5).reshape(count, side**2, -1))


def spread(table: torch.Tensor, side: int) -> torch.Tensor:
    """Stretch a square table of positions, (rows, width), over side x side places: (side^2, width)."""
    own = round(len(table) ** 0.5)
    if own == side:
        return table
    square = table.float().view(1, own, own, -1).permute(0, 3, 1, 2)  # (1, width, own, own)
    wide = F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return wide[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def _by_part(tensor: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows that come head by head, each with its q, k and v -> all of q, all of k, all of v."""
    return tensor.view(num_heads, 3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
