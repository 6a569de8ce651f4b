"""What the versions of MiniCPM-V share: tensor names, and the tower with its resampler."""

from __future__ import annotations

import torch

from sensorium.families.decoder_config import vision_part
from sensorium.families.family import Config, Encoder
from sensorium.model.encoders.navit import Navit
from sensorium.model.encoders.navit_config import NavitConfig, read_navit


def rename(name: str) -> tuple[str, str] | None:
    """Name of a tensor in the authors' layout: llm.*, vpm.* and resampler.*."""
    if name.endswith("rotary_emb.inv_freq"):
        return None  # computed, not learned
    if name.startswith("llm."):
        return "decoder", name.removeprefix("llm.").removeprefix("model.")
    return "vision", name


def navit(config: Config, *, in_one_row: bool) -> NavitConfig:
    """The tower's shape; `in_one_row` as in `NavitConfig`."""
    return read_navit(
        vision_part(config),
        out_hidden_size=config["hidden_size"],
        num_queries=int(config.get("query_num", 64)),
        drop_last_layer=bool(config.get("drop_vision_last_layer", True)),
        in_one_row=in_one_row,
    )


def encoder_in_one_row(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    """The tower of 2.5."""
    return Navit(navit(config, in_one_row=True), dtype, device)


def encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    """The tower of 2.6 and 4.0."""
    return Navit(navit(config, in_one_row=False), dtype, device)
