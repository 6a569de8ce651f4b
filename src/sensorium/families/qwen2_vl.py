"""Qwen2-VL: a ViT with 2-d rotary positions, LayerNorm and a plain MLP; Qwen2 with M-RoPE."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from sensorium.families.decoder_config import read_decoder, vision_part
from sensorium.families.family import Config, Encoder, Family
from sensorium.families.mrope import mrope_positions
from sensorium.families.names import rename_vision
from sensorium.families.qwen_image import IMAGE
from sensorium.families.qwen_video import VIDEO
from sensorium.model.encoders.vit import Vit
from sensorium.model.encoders.vit_config import VitConfig, read_vit

# What transformers' config class takes where the file is silent: some of its versions left out what equals it.
_VISION: dict[str, Any] = {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "hidden_act": "quick_gelu",
    "mlp_ratio": 4,
    "num_heads": 16,
    "patch_size": 14,
}


def vision(config: Config) -> VitConfig:
    """The tower's shape. Here `embed_dim` is its width and `hidden_size` the decoder's."""
    part = _VISION | dict(vision_part(config))
    return read_vit(
        part,
        hidden_size=part["embed_dim"],
        intermediate_size=int(part["embed_dim"] * part["mlp_ratio"]),
        out_hidden_size=part["hidden_size"],
        hidden_act=part["hidden_act"],
        mlp_names=("fc1", "fc2"),
        merger_names=("ln_q", "mlp.0", "mlp.2"),
    )


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return Vit(vision(config), dtype, device)


FAMILY = Family(
    name="qwen2_vl",
    architectures=("Qwen2VLForConditionalGeneration",),
    decoder=partial(read_decoder, attention_bias=True, rope_theta=1000000.0, mrope_section=(16, 24, 24)),
    rename=rename_vision,
    media={"image": IMAGE, "video": VIDEO},
    encoders={"vision": _encoder},
    positions=mrope_positions,
)
