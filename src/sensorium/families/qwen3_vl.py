"""Qwen3-VL: a ViT with a learned position table whose inner layers also feed the decoder (deepstack); Qwen3."""

from __future__ import annotations

from typing import Any

import torch

from sensorium.families.decoder_config import read_decoder, text_part, vision_part
from sensorium.families.family import Config, Encoder, Family
from sensorium.families.mrope import mrope_positions
from sensorium.families.names import rename_vision
from sensorium.families.qwen_image import IMAGE
from sensorium.families.qwen_video import STAMPED_VIDEO
from sensorium.model.config import DecoderConfig
from sensorium.model.encoders.vit import Vit
from sensorium.model.encoders.vit_config import VitConfig, read_vit

# What transformers' config class takes where the file is silent: some of its versions left out what equals it.
_VISION: dict[str, Any] = {
    "depth": 27,
    "hidden_size": 1152,
    "hidden_act": "gelu_pytorch_tanh",
    "intermediate_size": 4304,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 16,
}


def vision(config: Config) -> VitConfig:
    """The tower's shape."""
    part = _VISION | dict(vision_part(config))
    return read_vit(
        part,
        patch_bias=True,
        hidden_act=part["hidden_act"],
        mlp_names=("linear_fc1", "linear_fc2"),
        merger_names=("norm", "linear_fc1", "linear_fc2"),
        num_positions=int(part.get("num_position_embeddings", 2304)),
        deepstack_layers=tuple(part.get("deepstack_visual_indexes", (8, 16, 24))),
    )


def _decoder(config: Config) -> DecoderConfig:
    return read_decoder(
        config,
        attention_bias=bool(text_part(config).get("attention_bias", False)),
        qk_norm=True,
        rope_theta=500000.0,
        mrope_section=(24, 20, 20),
        mrope_interleaved=True,
        num_deepstack_layers=len(vision(config).deepstack_layers),
    )


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return Vit(vision(config), dtype, device)


FAMILY = Family(
    name="qwen3_vl",
    architectures=("Qwen3VLForConditionalGeneration",),
    decoder=_decoder,
    rename=rename_vision,
    media={"image": IMAGE, "video": STAMPED_VIDEO},
    encoders={"vision": _encoder},
    positions=mrope_positions,
)
