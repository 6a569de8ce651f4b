"""InternVL as transformers writes it (InternVL3-hf and later): InternViT over tiles, pixel shuffle, any decoder."""

from __future__ import annotations

from typing import Any

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.decoder_config import vision_part
from sensorium.families.family import Config, Encoder, Family, Media
from sensorium.families.inner_text import read_inner_text
from sensorium.families.names import rename_text_part, replaced
from sensorium.families.pixels import CLIP_MEAN, CLIP_STD, read_mode, read_rescale, read_statistic
from sensorium.families.tile_image import TileImageProcessor
from sensorium.families.tile_video import tile_video
from sensorium.model.encoders.tile_vit import TileVit, TileVitConfig

_NAMES = (
    ("multi_modal_projector.layer_norm.", "projector.norm."),
    ("multi_modal_projector.", "projector."),
    ("vision_tower.", ""),
    ("embeddings.cls_token", "class"),
    ("embeddings.patch_embeddings.projection.", "patch."),
    ("embeddings.position_embeddings", "positions"),
    ("encoder.layer.", "layers."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("lambda_", "scale"),
    ("attention.projection_layer.", "attn.proj."),
    ("attention.q_proj.", "attn.q."),
    ("attention.k_proj.", "attn.k."),
    ("attention.v_proj.", "attn.v."),
    ("attention.", "attn."),
)


def vision(config: Config) -> TileVitConfig:
    """The tower's shape; what the file leaves out is InternVLVisionConfig's default (InternViT-300M).

    Raises:
        ConfigurationError: the tower is used in a way that is not supported.
    """
    part = vision_part(config)
    layer = config.get("vision_feature_layer", -1)
    depth = int(part.get("num_hidden_layers", 24))
    wrong = {
        "vision_feature_layer": None if isinstance(layer, int) else layer,
        "vision_feature_select_strategy": config.get("vision_feature_select_strategy", "default"),
        "use_mean_pooling": part.get("use_mean_pooling", True),
    }
    for key, value in wrong.items():
        if value not in (None, "default", True):
            raise ConfigurationError(f"config.json has {key} {value!r}, which is not supported for this family.")
    return TileVitConfig(
        num_layers=layer if layer >= 0 else depth + 1 + layer,
        hidden_size=part.get("hidden_size", 1024),
        num_heads=part.get("num_attention_heads", 16),
        intermediate_size=part.get("intermediate_size", 4096),
        image_size=_side(part.get("image_size", 448)),
        patch_size=_side(part.get("patch_size", 14)),
        out_hidden_size=read_inner_text(config).hidden_size,
        hidden_act=part.get("hidden_act", "gelu"),
        eps=float(part.get("layer_norm_eps", 1e-6)),
        norm="rms" if part.get("norm_type") == "rms_norm" else "layer",
        patch_bias=True,
        qkv_bias=bool(part.get("attention_bias", False)),
        qk_norm=bool(part.get("use_qk_norm", False)),
        layer_scale=True,
        merge_size=round(1 / float(config.get("downsample_ratio", 0.5))),
        projector_norm=True,
        projector_act=config.get("projector_hidden_act", "gelu"),
    )


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return TileVit(vision(config), dtype, device)


def _processor(checkpoint: Checkpoint) -> TileImageProcessor:
    tower, settings = vision(checkpoint.config), checkpoint.image_settings
    size = settings.get("size") or {}
    if (size.get("height"), size.get("width")) != (tower.image_size,) * 2:
        raise ConfigurationError(
            f"preprocessor_config.json makes tiles of size {dict(size)}; the tower takes {tower.image_size}x"
            f"{tower.image_size} pixels."
        )
    # crop_to_patches is false in the files, and transformers' InternVLProcessor sets it true whatever they say.
    return TileImageProcessor(
        tile=tower.image_size,
        tokens_per_tile=tower.tokens_per_tile,
        cost_per_tile=tower.side**2,
        token_ids=(checkpoint.token_id("<img>"), _slot(checkpoint), checkpoint.token_id("</img>")),
        min_tiles=int(settings.get("min_patches", 1)),
        max_tiles=int(settings.get("max_patches", 12)),
        mean=read_statistic(settings, "image_mean", CLIP_MEAN),
        std=read_statistic(settings, "image_std", CLIP_STD),
        rescale=read_rescale(settings),
        mode=read_mode(settings),
    )


def _slot(checkpoint: Checkpoint) -> int:
    return checkpoint.config_id("image_token_id")


def _rename(name: str) -> tuple[str, str] | None:
    bare = name.removeprefix("model.")
    if bare.startswith(("vision_tower.", "multi_modal_projector.")):
        return None if bare.endswith("mask_token") else ("vision", replaced(bare, _NAMES))
    return rename_text_part(name)


def _side(size: Any) -> int:
    """A size as one number, or as (height, width), which must be equal."""
    sides = set(size) if isinstance(size, (list, tuple)) else {size}
    if len(sides) != 1:
        raise ConfigurationError(f"vision_config in config.json has the size {size}; only squares are supported.")
    return int(sides.pop())


FAMILY = Family(
    name="internvl",
    architectures=("InternVLForConditionalGeneration",),
    decoder=read_inner_text,
    rename=_rename,
    media={
        "image": Media(processor=_processor, placeholder=_slot, marker="<IMG_CONTEXT>", spellings=("<image>",)),
        "video": tile_video(_processor, _slot, spellings=("<video>",)),
    },
    encoders={"vision": _encoder},
)
