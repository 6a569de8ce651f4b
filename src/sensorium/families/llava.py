"""LLaVA-1.5 as llava-hf publishes it: a CLIP tower, a projector of two layers, Llama (or another decoder)."""

from __future__ import annotations

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.clip_image import ClipImageProcessor
from sensorium.families.decoder_config import vision_part
from sensorium.families.family import Config, Encoder, Family, Media
from sensorium.families.inner_text import read_inner_text
from sensorium.families.names import rename_clip, rename_text_part
from sensorium.model.encoders.tile_vit import TileVit, TileVitConfig

# CLIP ViT-L/14 at 336 pixels, what LlavaConfig takes where the file is silent.
_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


def vision(config: Config) -> TileVitConfig:
    """The tower's shape.

    Raises:
        ConfigurationError: it is another tower than CLIP, or its features are chosen in an unknown way.
    """
    part = _CLIP | dict(vision_part(config))
    kind, strategy = (
        part.get("model_type", "clip_vision_model"),
        config.get("vision_feature_select_strategy", "default"),
    )
    layer = config.get("vision_feature_layer", -2)
    depth = int(part["num_hidden_layers"])
    if kind != "clip_vision_model" or strategy not in ("default", "full") or not isinstance(layer, int):
        raise ConfigurationError(
            f"config.json has a vision tower {kind!r} with vision_feature_layer {layer!r} and strategy {strategy!r}; "
            "supported: 'clip_vision_model', one layer, and 'default' or 'full'."
        )
    return TileVitConfig(
        num_layers=layer if layer >= 0 else depth + 1 + layer,
        hidden_size=part["hidden_size"],
        num_heads=part["num_attention_heads"],
        intermediate_size=part["intermediate_size"],
        image_size=part["image_size"],
        patch_size=part["patch_size"],
        out_hidden_size=read_inner_text(config).hidden_size,
        hidden_act=part.get("hidden_act", "quick_gelu"),
        eps=float(part.get("layer_norm_eps", 1e-5)),
        first_norm=True,
        keep_class=strategy == "full",
        projector_act=config.get("projector_hidden_act", "gelu"),
        projector_bias=bool(config.get("multimodal_projector_bias", True)),
    )


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return TileVit(vision(config), dtype, device)


def _processor(checkpoint: Checkpoint) -> ClipImageProcessor:
    tower = vision(checkpoint.config)
    return ClipImageProcessor.read(
        checkpoint.image_settings,
        side=tower.image_size,
        num_tokens=tower.tokens_per_tile,
        cost=tower.side**2,
        pad=False,
    )


def _rename(name: str) -> tuple[str, str] | None:
    bare = name.removeprefix("model.")
    if bare.startswith("multi_modal_projector."):
        return "vision", bare.replace("multi_modal_projector.", "projector.")
    if bare.startswith("vision_tower."):
        return rename_clip(bare.removeprefix("vision_tower."))
    return rename_text_part(name)


FAMILY = Family(
    name="llava",
    architectures=("LlavaForConditionalGeneration",),
    decoder=read_inner_text,
    rename=_rename,
    media={
        "image": Media(
            processor=_processor,
            placeholder=lambda checkpoint: checkpoint.config_id("image_token_index", "image_token_id"),
            marker="<image>",
        )
    },
    encoders={"vision": _encoder},
)
