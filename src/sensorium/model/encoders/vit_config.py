"""What the one vision transformer needs to know about a checkpoint's tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sensorium.errors import ConfigurationError
from sensorium.model.config import check_numbers


@dataclass(frozen=True)
class VitConfig:
    """A pre-norm ViT over merge-ordered patches with 2-d RoPE and a patch merger. Sizes are Hugging Face's.

    `mlp_names` are the layer's linears in order: two for a plain MLP, three (gate, up, down) for SwiGLU.
    `merger_names` are the merger's norm and its two linears.
    """

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int  # the decoder's hidden_size
    patch_size: int
    temporal_patch_size: int
    in_channels: int
    spatial_merge_size: int
    hidden_act: str
    mlp_names: tuple[str, ...]
    merger_names: tuple[str, str, str]
    rope_theta: float = 10000.0
    norm: Literal["layer", "rms"] = "layer"
    patch_bias: bool = False
    window_size: int = 0  # in pixels; 0: every layer attends to the whole image
    full_attention_layers: frozenset[int] = frozenset()  # those that do so in spite of a window
    num_positions: int = 0  # rows of the learned position table, a square; 0: none
    deepstack_layers: tuple[int, ...] = ()  # layers whose merged output also goes to the decoder

    def __post_init__(self) -> None:
        check_numbers(self, "vision_config in config.json")

    @property
    def patch_dim(self) -> int:
        """Numbers per patch: channels x frames x patch_size^2."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merge_unit(self) -> int:
        """Patches that become one token."""
        return self.spatial_merge_size**2


def read_vit(part: Mapping[str, Any], **known: Any) -> VitConfig:
    """Read `vision_config`; `known` are the fields the family sets itself.

    Raises:
        ConfigurationError: a size is missing or does not fit.
    """
    values: dict[str, Any] = {
        "depth": part.get("depth"),
        "hidden_size": part.get("hidden_size"),
        "num_heads": part.get("num_heads"),
        "intermediate_size": part.get("intermediate_size"),
        "out_hidden_size": part.get("out_hidden_size"),
        "patch_size": part.get("patch_size"),
        "temporal_patch_size": part.get("temporal_patch_size", 2),
        "in_channels": part.get("in_channels", part.get("in_chans", 3)),
        "spatial_merge_size": part.get("spatial_merge_size", 2),
        "rope_theta": float((part.get("rope_parameters") or {}).get("rope_theta", 10000.0)),
    } | known
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise ConfigurationError(f"vision_config in config.json lacks {', '.join(missing)}.")
    config = VitConfig(**values)
    window = config.window_size // config.spatial_merge_size // config.patch_size
    if config.window_size and not window:
        raise ConfigurationError(
            f"vision_config has window_size {config.window_size}, less than a token of {config.patch_size} x "
            f"{config.spatial_merge_size} pixels."
        )
    if config.hidden_size % (4 * config.num_heads):
        raise ConfigurationError(
            f"vision_config has width {config.hidden_size} and {config.num_heads} heads; "
            "a head's size must be a multiple of 4 for rotary positions on two axes."
        )
    side = round(config.num_positions**0.5)
    if side * side != config.num_positions:
        raise ConfigurationError(f"num_position_embeddings is {config.num_positions} in vision_config, not a square.")
    return config
