"""Qwen2.5-VL: a ViT with RMSNorm and SwiGLU that mostly attends inside windows; Qwen2 with M-RoPE."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from sensorium.families.decoder_config import read_decoder, vision_part
from sensorium.families.family import Config, Encoder, Family
from sensorium.families.mrope import mrope_positions
from sensorium.families.names import rename_vision
from sensorium.families.qwen_image import IMAGE
from sensorium.families.qwen_video import TIMED_VIDEO
from sensorium.model.encoders.vit import Vit
from sensorium.model.encoders.vit_config import VitConfig, read_vit

# What transformers' config class takes where the file is silent: some of its versions left out what equals it.
_VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 3584,
    "hidden_act": "silu",
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
}


def vision(config: Config) -> VitConfig:
    """The tower's shape."""
    part = _VISION | dict(vision_part(config))
    return read_vit(
        part,
        norm="rms",
        hidden_act=part["hidden_act"],
        mlp_names=("gate_proj", "up_proj", "down_proj"),
        merger_names=("ln_q", "mlp.0", "mlp.2"),
        window_size=int(part.get("window_size", 112)),
        full_attention_layers=frozenset(part.get("fullatt_block_indexes", (7, 15, 23, 31))),
    )


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return Vit(vision(config), dtype, device)


FAMILY = Family(
    name="qwen2_5_vl",
    architectures=("Qwen2_5_VLForConditionalGeneration",),
    decoder=partial(read_decoder, attention_bias=True, rope_theta=1000000.0, mrope_section=(16, 24, 24)),
    rename=rename_vision,
    media={"image": IMAGE, "video": TIMED_VIDEO},
    encoders={"vision": _encoder},
    positions=mrope_positions,
)
