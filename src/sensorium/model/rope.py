"""Rotary position embeddings: plain, scaled, and Qwen's three-axis M-RoPE; and what the first Qwen did for long texts.

Tables are fp32; the rotation itself runs in the model's dtype, as the reference implementations do it.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from sensorium.errors import ConfigurationError
from sensorium.model.config import DecoderConfig

_NEEDED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "longrope": ("factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}


def inverse_frequencies(config: DecoderConfig) -> tuple[torch.Tensor, float]:
    """Return (head_dim / 2,) fp32 frequencies and the factor cos and sin are multiplied with.

    Source: transformers `modeling_rope_utils.py` (`default`, `linear`, `llama3`, `longrope`, `yarn`; `dynamic` equals
    `default` below max_position_embeddings, which max_model_len keeps to).
    """
    scaling = config.rope_scaling
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    inv_freq = 1.0 / (config.rope_theta**exponents)  # (head_dim / 2,)
    if kind in ("default", "mrope", "dynamic"):
        return inv_freq, 1.0
    _check(scaling, kind)
    if kind == "linear":
        return inv_freq / float(scaling["factor"]), 1.0
    if kind == "llama3":
        return _llama3(inv_freq, scaling), 1.0
    if kind == "longrope":
        return _longrope(inv_freq, scaling)
    if kind == "yarn":
        return _yarn(inv_freq, scaling, config.rope_theta)
    raise ConfigurationError(
        f"rope_scaling type {kind!r} is not supported; known: default, linear, dynamic, llama3, longrope, yarn, mrope."
    )


def _check(scaling: dict[str, Any], kind: str) -> None:
    wrong = [
        key
        for key in _NEEDED.get(kind, ())
        if not isinstance(scaling.get(key), int | float) or isinstance(scaling[key], bool) or scaling[key] <= 0
    ]
    if wrong:
        shown = ", ".join(f"{key} {scaling.get(key)!r}" for key in wrong)
        raise ConfigurationError(f"rope_scaling of type {kind!r} has {shown}; each must be a number above 0.")


def _longrope(inv_freq: torch.Tensor, scaling: dict[str, Any]) -> tuple[torch.Tensor, float]:
    """Every frequency has a factor of its own (LongRoPE); these are those of contexts up to the original length."""
    short = scaling.get("short_factor")
    if not isinstance(short, list) or len(short) != len(inv_freq) or not all(isinstance(x, int | float) for x in short):
        count = f"{len(short)} short_factor" if isinstance(short, list) else f"short_factor {short!r}"
        raise ConfigurationError(f"rope_scaling has {count}; it must be {len(inv_freq)} numbers.")
    factors = torch.tensor(short, dtype=torch.float32)
    factor, original = float(scaling["factor"]), int(scaling["original_max_position_embeddings"])
    default = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1.0 else 1.0
    return inv_freq / factors, float(scaling.get("attention_factor") or default)


def _yarn(inv_freq: torch.Tensor, scaling: dict[str, Any], theta: float) -> tuple[torch.Tensor, float]:
    """Frequencies that turn seldom within the original length are stretched by `factor`, often turning ones kept.

    Source: YaRN, arXiv:2309.00071.
    """
    factor, original = float(scaling["factor"]), scaling["original_max_position_embeddings"]

    def place(turns: float) -> float:
        """Which frequency turns so often within the original length, not rounded."""
        return len(inv_freq) * math.log(original / (turns * 2 * math.pi)) / math.log(theta)

    def wide(scale: float, by: float = 1.0) -> float:
        return 0.1 * by * math.log(scale) + 1.0 if scale > 1 else 1.0

    low, high = place(scaling.get("beta_fast") or 32), place(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * len(inv_freq) - 1)
    ramp = (torch.arange(len(inv_freq), dtype=torch.float32) - low) / (high - low if high != low else 0.001)
    share = ramp.clamp(0, 1)  # (head_dim / 2,): of stretching
    one, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    default = wide(factor, one) / wide(factor, all_dim) if one and all_dim else wide(factor)
    given = scaling.get("attention_factor")
    return inv_freq / factor * share + inv_freq * (1 - share), float(default if given is None else given)


def _llama3(inv_freq: torch.Tensor, scaling: dict[str, float]) -> torch.Tensor:
    """Long wavelengths are stretched by `factor`, short ones kept, those between blended (Llama 3.1)."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    wavelength = 2 * math.pi / inv_freq
    smooth = (original / wavelength - low) / (high - low)
    blended = (1 - smooth) * inv_freq / factor + smooth * inv_freq
    stretched = torch.where(wavelength > original / low, inv_freq / factor, inv_freq)
    between = (wavelength <= original / low) & (wavelength >= original / high)
    return torch.where(between, blended, stretched)


def prompt_table(length: int, config: DecoderConfig) -> int:
    """Return which row of `Rope`'s frequencies a prompt of `length` tokens, and the answer to it, turn with.

    The first Qwen's "dynamic NTK" (its `modeling_qwen.py`): twice the trained length takes the next row. Its authors
    choose by the prompt and keep to it while the answer grows, as the keys in the cache have been turned already.
    """
    if not config.ntk_length:
        return 0
    return (-(-length // config.ntk_length) - 1).bit_length()


def _ntk(config: DecoderConfig) -> torch.Tensor:
    """Return (rows, head_dim / 2): row r has a base so much larger that 2**r times the trained length fits."""
    exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    rows = range(prompt_table(config.max_position_embeddings, config) + 1)
    stretch = [float(2 ** (row + 1) - 1) ** (config.head_dim / (config.head_dim - 2)) for row in rows]
    return torch.stack([1.0 / ((config.rope_theta * factor) ** exponents) for factor in stretch])


class Rope:
    """cos/sin for the tokens of a step."""

    def __init__(self, config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> None:
        inv_freq, self._factor = inverse_frequencies(config)
        self._inv_freq = inv_freq.to(device)
        self._rows = _ntk(config).to(device) if config.ntk_length else None  # (rows, head_dim / 2)
        self._logn_length = config.logn_length
        self._dtype = dtype
        self._axis = _axes(config).to(device) if config.mrope_section else None  # (head_dim / 2,)

    def tables(self, positions: torch.Tensor, rows: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """(num_tokens,), or (3, num_tokens) for M-RoPE, int64 -> cos and signed sin, (num_tokens, 1, head_dim).

        The first half of sin is negated, so that rotating is x * cos + swap_halves(x) * sin. `rows` is (num_tokens,)
        int64 of `prompt_table`.
        """
        if self._rows is not None and rows is not None:
            angles = positions.float()[:, None] * self._rows[rows]  # (num_tokens, head_dim / 2)
        elif self._axis is None:
            angles = positions.float()[:, None] * self._inv_freq  # (num_tokens, head_dim / 2)
        else:
            angles = positions.float().t()[:, self._axis] * self._inv_freq  # (num_tokens, head_dim / 2)
        cos, sin = angles.cos() * self._factor, angles.sin() * self._factor
        cos = torch.cat((cos, cos), -1).to(self._dtype)[:, None]  # (num_tokens, 1, head_dim)
        return cos, torch.cat((-sin, sin), -1).to(self._dtype)[:, None]  # (num_tokens, 1, head_dim)

    def query_factors(self, positions: torch.Tensor) -> torch.Tensor | None:
        """(num_tokens,) int64 -> (num_tokens, 1, 1): log of a token's place to the base of the trained length, if > 1.

        None where the model does not do so. Source: the first Qwen's `modeling_qwen.py`, logn_tensor.
        """
        if not self._logn_length:
            return None
        factors = (positions + 1).float().log() / math.log(self._logn_length)
        return factors.clamp_(min=1.0).to(self._dtype)[:, None, None]


def _axes(config: DecoderConfig) -> torch.Tensor:
    """Which position axis (0 time, 1 height, 2 width) turns each frequency: (head_dim / 2,) int64.

    Qwen2-VL lays the three sections one behind the other; Qwen3-VL lets them take turns t, h, w, t, h, w, ...
    until height and width are used up, and gives the rest to time.
    """
    section = config.mrope_section
    if not config.mrope_interleaved:
        return torch.repeat_interleave(torch.arange(3), torch.tensor(section))
    axes = torch.zeros(config.head_dim // 2, dtype=torch.int64)
    for axis in (1, 2):
        axes[axis : section[axis] * 3 : 3] = axis
    return axes


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate (num_tokens, num_heads, head_dim) by `Rope.tables`."""
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), -1)
    return torch.addcmul(x * cos, swapped, sin)
