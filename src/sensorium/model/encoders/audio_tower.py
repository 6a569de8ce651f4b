"""Whisper's encoder with its rows averaged in pairs, and the projector into the decoder's embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sensorium.errors import ConfigurationError
from sensorium.model.config import check_numbers
from sensorium.model.encoders.vit_layers import AttentionLayout, Norm, attend, take_linear
from sensorium.model.linear import Linear
from sensorium.model.taker import Taker

if TYPE_CHECKING:
    from sensorium.families.family import EncoderInput

_EPS = 1e-5  # of every norm; config.json does not carry it


@dataclass(frozen=True)
class AudioTowerConfig:
    """A pre-norm transformer behind two convolutions, of which the second halves the number of rows."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    num_mels: int
    max_rows: int  # of the longest clip, behind the convolutions
    out_hidden_size: int  # the decoder's hidden_size

    def __post_init__(self) -> None:
        check_numbers(self, "audio_config in config.json")
        if self.hidden_size % self.num_heads:
            raise ConfigurationError(
                f"audio_config in config.json has d_model {self.hidden_size} and {self.num_heads} heads; the heads "
                "must share it evenly."
            )


class AudioTower:
    """Spectrograms in, decoder embeddings out; see `families.family.Encoder`.

    Items bring `input_features`, (num_mels, num_frames) float32: for a clip of n rows 2 * n + 1 frames, or 2 * n for
    the longest. Only a clip's own rows are computed. A tower that is given 30 s whatever the clip's length and masks
    the rest computes the same for them: no row sees further than that one frame behind its clip.

    Args:
        config: shapes.
        dtype: of weights and activations.
        device: where they are.
    """

    def __init__(self, config: AudioTowerConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.config = config
        self.out_features = config.out_hidden_size
        self._dtype, self._device = dtype, device

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the tower's and the projector's tensors."""
        c, hidden, take = self.config, self.config.hidden_size, Taker(weights, "audio tower")
        self._conv1 = take("conv1.weight", hidden, c.num_mels, 3), take("conv1.bias", hidden)
        self._conv2 = take("conv2.weight", hidden, hidden, 3), take("conv2.bias", hidden)
        self._positions = take("positions", c.max_rows, hidden)  # sines, but the checkpoint's are taken
        self._layers = [_Layer(c, take, f"layers.{index}.") for index in range(c.num_layers)]
        self._norm = Norm("layer", take, "norm", hidden, _EPS)
        self._projector = take_linear(take, "projector", c.out_hidden_size, hidden)
        take.check_empty()
        self.sites = take.sites

    def encode(self, items: Sequence[EncoderInput]) -> Iterator[list[torch.Tensor] | None]:
        """Yield None after every layer, and at last one (num_tokens, out_features) tensor per item."""
        clips = [item.tensors["input_features"].to(self._device, self._dtype) for item in items]
        x = torch.cat([self._embed(clip) for clip in clips])  # (rows of all clips, hidden_size)
        rows = [clip.shape[1] // 2 for clip in clips]
        layout = AttentionLayout([(len(list(equal)), length) for length, equal in groupby(rows)])
        for layer in self._layers:
            x = layer(x, layout)
            yield None
        pairs = torch.cat([self._pairs(part) for part in torch.split(x, rows)])
        parts = torch.split(self._projector(self._norm(pairs)), [length // 2 for length in rows])
        # A cache may keep one of them without all the others.
        yield [part.clone() for part in parts] if len(parts) > 1 else list(parts)

    def _embed(self, clip: torch.Tensor) -> torch.Tensor:
        """(num_mels, num_frames) -> (num_rows, hidden_size)."""
        rows = clip.shape[1] // 2
        x = F.gelu(F.conv1d(clip[None], *self._conv1, padding=1))
        x = F.gelu(F.conv1d(x[:, :, : 2 * rows], *self._conv2, stride=2, padding=1))
        return x[0].T + self._positions[:rows]

    def _pairs(self, x: torch.Tensor) -> torch.Tensor:
        """(num_rows, hidden_size) -> (num_rows // 2, hidden_size): averages; an odd row at the end is left out."""
        return x[: len(x) // 2 * 2].view(-1, 2, self.config.hidden_size).mean(1)


class _Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: AudioTowerConfig, take: Taker, prefix: str) -> None:
        hidden, middle = config.hidden_size, config.intermediate_size
        self._heads = config.num_heads
        self._norm1 = Norm("layer", take, prefix + "norm1", hidden, _EPS)
        self._norm2 = Norm("layer", take, prefix + "norm2", hidden, _EPS)
        self._qkv = _take_qkv(take, prefix + "attn.", hidden)
        self._proj = take_linear(take, prefix + "attn.proj", hidden, hidden)
        self._fc1 = take_linear(take, prefix + "fc1", middle, hidden)
        self._fc2 = take_linear(take, prefix + "fc2", hidden, middle)

    def __call__(self, x: torch.Tensor, layout: AttentionLayout) -> torch.Tensor:
        """(num_rows, hidden_size) -> the same."""
        qkv = self._qkv(self._norm1(x)).view(x.shape[0], 3, self._heads, -1)
        x = self._proj.plus(attend(qkv, layout), x)
        return self._fc2.plus(self._fc1.gelu(self._norm2(x)), x)


def _take_qkv(take: Taker, prefix: str, hidden: int) -> Linear:
    """One linear for q, k and v; k has no bias, which is a bias of zeros."""
    weight = torch.cat([take(f"{prefix}{name}.weight", hidden, hidden) for name in "qkv"])
    q, v = (take(f"{prefix}{name}.bias", hidden) for name in "qv")
    layer = Linear(weight, torch.cat([q, torch.zeros_like(q), v]))
    return take.sites.place(layer, {prefix + name: hidden for name in "qkv"})
