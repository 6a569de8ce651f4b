"""The parts of the vision transformer: norms, attention, MLP, patch merger. No state beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from sensorium.errors import ConfigurationError
from sensorium.model.encoders.patch_grid import Run
from sensorium.model.encoders.vit_config import VitConfig
from sensorium.model.linear import Linear
from sensorium.model.taker import Taker

_ROWS = 256  # query rows whose scores are held at once
_EPS = 1e-6  # of every norm in Qwen's towers; their config.json does not carry it

Activated = Callable[[Linear, torch.Tensor], torch.Tensor]


def _quick_gelu(linear: Linear, x: torch.Tensor) -> torch.Tensor:
    x = linear(x)
    return torch.sigmoid(1.702 * x).mul_(x)


_ACTIVATIONS: dict[str, Activated] = {
    "quick_gelu": _quick_gelu,
    "gelu": Linear.gelu,
    "gelu_pytorch_tanh": partial(Linear.gelu, approximate="tanh"),
    "silu": Linear.silu,
}


def activation(name: str) -> Activated:
    """Return a linear layer followed by the activation config.json calls `name`, as a function of layer and input.

    Raises:
        ConfigurationError: it is not known.
    """
    if name not in _ACTIVATIONS:
        raise ConfigurationError(
            f"vision_config has hidden_act {name!r}; supported: {', '.join(sorted(_ACTIVATIONS))}."
        )
    return _ACTIVATIONS[name]


def take_linear(take: Taker, name: str, out_features: int, in_features: int, bias: bool = True) -> Linear:
    """Return the linear layer `name`."""
    weight = take(f"{name}.weight", out_features, in_features)
    layer = Linear(weight, take(f"{name}.bias", out_features) if bias else None)
    return take.sites.place(layer, {name: out_features})


class Norm:
    """LayerNorm or RMSNorm over the last axis; computed in fp32 whatever the dtype."""

    def __init__(self, kind: str, take: Taker, name: str, size: int, eps: float = _EPS) -> None:
        self._eps = eps
        self._weight = take(f"{name}.weight", size)
        self._bias = take(f"{name}.bias", size) if kind == "layer" else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._bias is None:
            return F.rms_norm(x, self._weight.shape, self._weight, self._eps)
        return F.layer_norm(x, self._weight.shape, self._weight, self._bias, self._eps)


@dataclass(frozen=True)
class AttentionLayout:
    """Which patches see each other: neighbouring segments, after the rows were put in `order`, if there is one."""

    runs: Sequence[Run]
    order: torch.Tensor | None = None  # (num_patches,) int64
    inverse: torch.Tensor | None = None  # (num_patches,) int64: back to the order of the rows


def attend(qkv: torch.Tensor, layout: AttentionLayout) -> torch.Tensor:
    """(num_patches, 3, num_heads, head_dim) -> (num_patches, num_heads * head_dim).

    Segments of one length are one call: the windows of a batch take at most a handful.
    """
    if layout.order is not None:
        qkv = qkv[layout.order]
    results, start = [], 0
    for count, length in layout.runs:
        stop = start + count * length
        part = qkv[start:stop].view(count, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        by_matmul = qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16
        attend_all = _attend_by_matmul if by_matmul else F.scaled_dot_product_attention
        out = attend_all(part[0], part[1], part[2])  # (count, num_heads, length, head_dim)
        results.append(out.transpose(1, 2).reshape(stop - start, -1))
        start = stop
    attended = results[0] if len(results) == 1 else torch.cat(results)
    return attended if layout.inverse is None else attended[layout.inverse]


def _attend_by_matmul(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of (count, num_heads, length, head_dim) bf16, some query rows of all heads at a time.

    On a CPU the fused kernel takes twice as long for segments of 200 patches and a sixth longer for 800.
    """
    shape = q.shape
    q, k, v = (
        x.reshape(-1, *shape[2:]) for x in (q * shape[-1] ** -0.5, k, v)
    )  # (count * num_heads, length, head_dim)
    out = torch.empty_like(q)
    for start in range(0, shape[2], _ROWS):
        rows = slice(start, start + _ROWS)
        out[:, rows] = torch.bmm(torch.softmax(torch.bmm(q[:, rows], k.mT), -1), v)
    return out.view(shape)


def rotate_(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotate (num_patches, ..., head_dim) in place, in fp32; cos and sin are (num_patches, ..., head_dim / 2)."""
    half = x.shape[-1] // 2
    wide = x.float()  # x itself, where it is fp32: nothing is written before both halves are computed
    first, second = wide[..., :half], wide[..., half:]
    new_first = (first * cos).addcmul_(second, sin, value=-1)
    new_second = (second * cos).addcmul_(first, sin)
    x[..., :half] = new_first
    x[..., half:] = new_second


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: VitConfig, take: Taker, index: int) -> None:
        hidden, middle, prefix = config.hidden_size, config.intermediate_size, f"blocks.{index}."
        self._heads = config.num_heads
        self._norm1 = Norm(config.norm, take, prefix + "norm1", hidden)
        self._norm2 = Norm(config.norm, take, prefix + "norm2", hidden)
        self._qkv = take_linear(take, prefix + "attn.qkv", 3 * hidden, hidden)
        self._proj = take_linear(take, prefix + "attn.proj", hidden, hidden)
        *inner, last = config.mlp_names
        self._inner = [take_linear(take, f"{prefix}mlp.{name}", middle, hidden) for name in inner]
        self._last = take_linear(take, f"{prefix}mlp.{last}", hidden, middle)
        self._act = activation(config.hidden_act)

    def __call__(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: AttentionLayout) -> torch.Tensor:
        """(num_patches, hidden_size) -> the same; cos and sin are (num_patches, 1, 1, head_dim / 2) fp32."""
        qkv = self._qkv(self._norm1(x)).view(x.shape[0], 3, self._heads, -1)
        rotate_(qkv[:, :2], cos, sin)
        x = self._proj.plus(attend(qkv, layout), x)
        return self._last.plus(self._middle(self._norm2(x)), x)

    def _middle(self, x: torch.Tensor) -> torch.Tensor:
        first = self._act(self._inner[0], x)
        return first if len(self._inner) == 1 else self._inner[1].times(x, first)


class Merger:
    """Make one token of merge_unit neighbouring patches: norm, join, linear, GELU, linear."""

    def __init__(self, config: VitConfig, take: Taker, prefix: str, *, norm_joined: bool = False) -> None:
        self._joined = config.hidden_size * config.merge_unit
        norm, first, second = (f"{prefix}.{name}" for name in config.merger_names)
        self._norm = Norm(config.norm, take, norm, self._joined if norm_joined else config.hidden_size)
        self._norm_joined = norm_joined
        self._first = take_linear(take, first, self._joined, self._joined)
        self._second = take_linear(take, second, config.out_hidden_size, self._joined)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(num_patches, hidden_size) -> (num_patches / merge_unit, out_hidden_size)."""
        x = self._norm(x.view(-1, self._joined)) if self._norm_joined else self._norm(x).view(-1, self._joined)
        return self._second(self._first.gelu(x))
