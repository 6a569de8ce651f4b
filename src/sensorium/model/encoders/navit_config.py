"""What MiniCPM-V's vision tower needs to know about a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium.model.config import check_numbers

_QUERY_HEAD = 128  # the resampler's head size in all versions; config.json does not carry it


@dataclass(frozen=True)
class NavitConfig:
    """A SigLIP tower over patches of slices of any size, and a resampler. Sizes are Hugging Face's.

    Attributes:
        positions: places per side of the learned position table.
        in_one_row: the patches of a slice are placed as one row of the table, whatever their grid (2.5).
    """

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    patch_size: int
    positions: int
    hidden_act: str
    out_hidden_size: int  # the decoder's hidden_size
    num_queries: int
    num_query_heads: int
    in_one_row: bool

    def __post_init__(self) -> None:
        check_numbers(self, "config.json")


def read_navit(
    part: Mapping[str, Any], *, out_hidden_size: int, num_queries: int, drop_last_layer: bool, in_one_row: bool
) -> NavitConfig:
    """Read `vision_config`; the keyword arguments are what stands elsewhere in config.json.

    Raises:
        ConfigurationError: a size is missing or does not fit.
    """
    needed = (
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "intermediate_size",
        "patch_size",
        "image_size",
    )
    missing = [key for key in needed if not isinstance(part.get(key), int)]
    if missing:
        raise ConfigurationError(f"vision_config in config.json lacks {', '.join(missing)}.")
    if part.get("layer_norm_eps", 1e-6) != 1e-6:
        raise ConfigurationError(f"vision_config has layer_norm_eps {part['layer_norm_eps']}; only 1e-06 is supported.")
    if part["hidden_size"] % part["num_attention_heads"]:
        raise ConfigurationError(
            f"vision_config has width {part['hidden_size']} and {part['num_attention_heads']} heads; "
            "the heads must share it evenly."
        )
    if out_hidden_size % _QUERY_HEAD:
        raise ConfigurationError(
            f"hidden_size is {out_hidden_size} in config.json; the resampler of this architecture needs a multiple of "
            f"{_QUERY_HEAD}."
        )
    return NavitConfig(
        depth=part["num_hidden_layers"] - drop_last_layer,
        hidden_size=part["hidden_size"],
        num_heads=part["num_attention_heads"],
        intermediate_size=part["intermediate_size"],
        patch_size=part["patch_size"],
        positions=part["image_size"] // part["patch_size"],
        hidden_act=part.get("hidden_act", "gelu_pytorch_tanh"),
        out_hidden_size=out_hidden_size,
        num_queries=num_queries,
        num_query_heads=out_hidden_size // _QUERY_HEAD,
        in_one_row=in_one_row,
    )
