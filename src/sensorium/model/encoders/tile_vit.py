"""The vision transformer of fixed-size tiles: CLIP, SigLIP and InternViT; what they differ in is in TileVitConfig."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from sensorium.errors import ConfigurationError
from sensorium.model.config import check_numbers
from sensorium.model.encoders.portions import portions
from sensorium.model.encoders.vit_layers import AttentionLayout, Norm, activation, attend, take_linear
from sensorium.model.linear import Linear
from sensorium.model.taker import Taker

if TYPE_CHECKING:
    from sensorium.families.family import EncoderInput


@dataclass(frozen=True)
class TileVitConfig:
    """A pre-norm ViT with learned positions, and the projector into the decoder's embeddings."""

    num_layers: int  # that are run: the features may come from an inner layer
    hidden_size: int
    num_heads: int
    intermediate_size: int
    image_size: int  # of a tile's side, in pixels
    patch_size: int
    out_hidden_size: int  # the decoder's hidden_size
    hidden_act: str
    eps: float
    norm: Literal["layer", "rms"] = "layer"
    patch_bias: bool = False
    first_norm: bool = False  # before the first layer (CLIP)
    qkv_bias: bool = True
    qk_norm: bool = False  # RMSNorm on all heads of q and k together
    layer_scale: bool = False  # a learned factor on what each half of a layer adds
    class_token: bool = True
    keep_class: bool = False  # its row goes to the decoder too
    bucketed: bool = False  # a patch's place in the position table is found by its share of the side, in float32
    last_norm: bool = False  # behind the last layer (SigLIP)
    merge_size: int = 1  # merge_size x merge_size neighbouring patches become one token
    projector_norm: bool = False
    projector_layers: Literal[1, 2] = 2
    projector_act: str = "gelu"  # between two
    projector_bias: bool = True
    projector_after_norms: bool = False  # a LayerNorm behind each of the projector's layers

    def __post_init__(self) -> None:
        check_numbers(self, "config.json, of the vision tower,")
        if self.hidden_size % self.num_heads or self.side < 1 or self.side % self.merge_size:
            raise ConfigurationError(
                f"The vision tower in config.json has width {self.hidden_size}, {self.num_heads} heads, and "
                f"{self.side} patches of {self.patch_size} pixels to a side of {self.image_size}, of which "
                f"{self.merge_size} x {self.merge_size} become a token: these do not fit each other."
            )

    @property
    def side(self) -> int:
        """Patches along a tile's side."""
        return self.image_size // self.patch_size

    @property
    def tokens_per_tile(self) -> int:
        """Rows that a tile becomes."""
        return (self.side // self.merge_size) ** 2 + self.keep_class


class TileVit:
    """Tiles in, decoder embeddings out; see `families.family.Encoder`.

    Items bring `pixel_values`, (num_tiles, 3, image_size, image_size) float32.

    Args:
        config: shapes and flags.
        dtype: of weights and activations.
        device: where they are.
    """

    def __init__(self, config: TileVitConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.config = config
        self.out_features = config.out_hidden_size
        self._dtype, self._device = dtype, device

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the tower's and the projector's tensors."""
        c, hidden = self.config, self.config.hidden_size
        take = Taker({name: tensor for name, tensor in weights.items() if not self._is_unused(name)}, "vision tower")
        kernel = take("patch.weight", hidden, 3, c.patch_size, c.patch_size)
        self._patch = Linear(kernel.reshape(hidden, -1), take("patch.bias", hidden) if c.patch_bias else None)
        positions = take.reshaped("positions", c.side**2 + c.class_token, hidden)
        self._class = take.reshaped("class", 1, hidden) + positions[:1] if c.class_token else None  # (1, hidden_size)
        table = positions[c.class_token :].view(c.side, c.side, hidden)
        if c.bucketed:
            places = _places(c.side)
            table = table[places][:, places]
        self._positions = self._in_merge_order(table[None]).view(-1, hidden)
        self._first_norm = Norm("layer", take, "first_norm", hidden, c.eps) if c.first_norm else None
        self._layers = [Layer(c, take, f"layers.{index}.") for index in range(c.num_layers)]
        self._last_norm = Norm("layer", take, "last_norm", hidden, c.eps) if c.last_norm else None
        joined, out = hidden * c.merge_size**2, c.out_hidden_size
        self._norm = Norm("layer", take, "projector.norm", joined, 1e-5) if c.projector_norm else None
        self._first = take_linear(take, "projector.linear_1", out, joined, c.projector_bias)
        two = c.projector_layers == 2
        self._second = take_linear(take, "projector.linear_2", out, out, c.projector_bias) if two else None
        self._act = activation(c.projector_act)
        names = ("projector.norm_1", "projector.norm_2") if c.projector_after_norms else ()
        self._after_norms = [Norm("layer", take, name, out, 1e-5) for name in names]
        take.check_empty()
        self.sites = take.sites
        self.sites.unused = {name.removesuffix(".weight") for name in weights if self._is_unused(name)}

    def encode(self, items: Sequence[EncoderInput]) -> Iterator[list[torch.Tensor] | None]:
        """Yield None after every layer of a portion, and at last one (num_tokens, out_features) tensor per item."""
        tiles = torch.cat([item.tensors["pixel_values"] for item in items])
        length = self.config.side**2 + self.config.class_token
        found: list[torch.Tensor] = []
        for part in portions([length] * len(tiles)):
            x = self._embed(tiles[part].to(self._device, self._dtype))
            layout = AttentionLayout([(len(tiles[part]), length)])
            for layer in self._layers:
                x = layer(x, layout)  # (num_tiles * (1 + num_patches), hidden_size)
                yield None
            x = x if self._last_norm is None else self._last_norm(x)
            found.append(self._project(x.view(-1, length, self.config.hidden_size)))
        rows = found[0] if len(found) == 1 else torch.cat(found)
        parts = torch.split(rows, [len(item.tensors["pixel_values"]) * self.config.tokens_per_tile for item in items])
        # A cache may keep one of them without all the others.
        yield [part.clone() for part in parts] if len(parts) > 1 else list(parts)

    def _is_unused(self, name: str) -> bool:
        """Layers behind the one the features come from, and the norm behind them all."""
        number = name.removeprefix("layers.").split(".")[0]
        unused_norm = name.startswith("last_norm.") and not self.config.last_norm
        return unused_norm or (number.isdigit() and int(number) >= self.config.num_layers)

    def _embed(self, tiles: torch.Tensor) -> torch.Tensor:
        """(num_tiles, 3, image_size, image_size) -> (num_tiles * (class_token + num_patches), hidden_size)."""
        count, side, patch = len(tiles), self.config.side, self.config.patch_size
        patches = tiles[:, :, : side * patch, : side * patch].reshape(count, 3, side, patch, side, patch)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(count, side, side, -1)
        rows = self._patch(self._in_merge_order(patches).reshape(count * side**2, -1))
        x = rows.view(count, side**2, -1) + self._positions
        if self._class is not None:
            x = torch.cat([self._class.expand(count, 1, -1), x], dim=1)
        x = x.flatten(0, 1)
        return x if self._first_norm is None else self._first_norm(x)

    def _in_merge_order(self, x: torch.Tensor) -> torch.Tensor:
        """(count, side, side, n) -> the same rows, those that become one token next to each other."""
        merge = self.config.merge_size
        count, side, _, size = x.shape
        x = x.view(count, side // merge, merge, side // merge, merge, size)
        return x.permute(0, 1, 3, 2, 4, 5).contiguous()

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """(num_tiles, class_token + num_patches, hidden_size) -> (num_tiles * tokens_per_tile, out_features)."""
        x = x[:, 1:] if self.config.class_token and not self.config.keep_class else x
        x = x.reshape(-1, self.config.hidden_size * self.config.merge_size**2)
        x = x if self._norm is None else self._norm(x)
        if self._second is None:
            return self._first(x)
        if self._after_norms:
            first, second = self._after_norms
            return second(self._second(F.gelu(first(self._first(x)))))
        return self._second(self._act(self._first, x))


def _places(side: int) -> torch.Tensor:
    """(side,) int64: where patches fall in a table of as many places. Rounding puts some into their neighbour's.

    Source: transformers `models/smolvlm/modeling_smolvlm.py`, SmolVLMVisionEmbeddings.
    """
    step = 1.0 / torch.tensor([side])
    shares = torch.clamp(torch.arange(side, dtype=torch.float32) * step, max=1.0 - 1e-6)
    return torch.bucketize(shares, torch.arange(1 / side, 1.0, 1 / side), right=True)


class Layer:
    """x + scale1 * attention(norm(x)), then x + scale2 * mlp(norm(x))."""

    def __init__(self, config: TileVitConfig, take: Taker, prefix: str) -> None:
        hidden, middle = config.hidden_size, config.intermediate_size
        self._heads, self._eps = config.num_heads, config.eps
        self._norm1 = Norm(config.norm, take, prefix + "norm1", hidden, config.eps)
        self._norm2 = Norm(config.norm, take, prefix + "norm2", hidden, config.eps)
        self._qkv = _take_qkv(take, prefix + "attn.", hidden, config.qkv_bias)
        names = ("q_norm", "k_norm") if config.qk_norm else ()
        self._qk_norms = [take(f"{prefix}attn.{name}.weight", hidden) for name in names]
        scales = [take(prefix + name, hidden) if config.layer_scale else None for name in ("scale1", "scale2")]
        self._proj = _take_scaled(take, prefix + "attn.proj", hidden, hidden, scales[0])
        self._fc1 = take_linear(take, prefix + "mlp.fc1", middle, hidden)
        self._fc2 = _take_scaled(take, prefix + "mlp.fc2", hidden, middle, scales[1])
        self._act = activation(config.hidden_act)

    def __call__(self, x: torch.Tensor, layout: AttentionLayout) -> torch.Tensor:
        """(num_rows, hidden_size) -> the same."""
        qkv = self._qkv(self._norm1(x)).view(x.shape[0], 3, -1)
        for index, weight in enumerate(self._qk_norms):
            # 1e-6 whatever config.json says of the other norms; so have both implementations.
            qkv[:, index] = F.rms_norm(qkv[:, index], weight.shape, weight, 1e-6)
        x = self._proj.plus(attend(qkv.view(x.shape[0], 3, self._heads, -1), layout), x)
        return self._fc2.plus(self._act(self._fc1, self._norm2(x)), x)


def _take_qkv(take: Taker, prefix: str, hidden: int, bias: bool) -> Linear:
    """One linear for q, k and v, whether the checkpoint has one tensor or three."""
    if prefix + "qkv.weight" in take:
        return take_linear(take, prefix + "qkv", 3 * hidden, hidden, bias)
    weight = torch.cat([take(f"{prefix}{name}.weight", hidden, hidden) for name in "qkv"])
    layer = Linear(weight, torch.cat([take(f"{prefix}{name}.bias", hidden) for name in "qkv"]) if bias else None)
    return take.sites.place(layer, {prefix + name: hidden for name in "qkv"})


def _take_scaled(take: Taker, name: str, out_features: int, in_features: int, scale: torch.Tensor | None) -> Linear:
    """A linear whose output is to be multiplied by `scale`, (out_features,): the factor goes into its weights."""
    weight, bias = take(f"{name}.weight", out_features, in_features), take(f"{name}.bias", out_features)
    if scale is None:
        return take.sites.place(Linear(weight, bias), {name: out_features})
    wide = scale.float()
    layer = Linear((weight.float() * wide[:, None]).to(weight.dtype), (bias.float() * wide).to(bias.dtype))
    return take.sites.place(layer, {name: out_features}, wide)
