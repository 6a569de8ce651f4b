"""InternVL 2, 2.5 and 3 as their authors publish them: the towers of `internvl`, other names, Qwen2 or InternLM2."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import Config, Encoder, Family, Media
from sensorium.families.inner_text import read_inner_text
from sensorium.families.internvl import vision
from sensorium.families.names import rename_text_part, replaced
from sensorium.families.tile_image import TileImageProcessor
from sensorium.families.tile_video import tile_video
from sensorium.model.config import DecoderConfig
from sensorium.model.encoders.tile_vit import TileVit

_TOWER = (
    ("vision_model.", ""),
    ("embeddings.class_embedding", "class"),
    ("embeddings.patch_embedding.", "patch."),
    ("embeddings.position_embedding", "positions"),
    ("encoder.layers.", "layers."),
    (".ls", ".scale"),
    ("mlp1.0.", "projector.norm."),
    ("mlp1.1.", "projector.linear_1."),
    ("mlp1.3.", "projector.linear_2."),
)
_INTERNLM2 = (
    ("model.tok_embeddings.", "embed_tokens."),
    ("attention.wqkv.", "self_attn.wqkv."),
    ("attention.wo.", "self_attn.o_proj."),
    ("attention_norm.", "input_layernorm."),
    ("ffn_norm.", "post_attention_layernorm."),
    ("feed_forward.w1.", "mlp.gate_proj."),
    ("feed_forward.w3.", "mlp.up_proj."),
    ("feed_forward.w2.", "mlp.down_proj."),
)


def as_transformers(config: Config) -> Config:
    """Return what transformers' config of the same model would say.

    Raises:
        ConfigurationError: a part is missing, or asks for something only InternVL 1 had.
    """
    text, tower = config.get("llm_config"), config.get("vision_config")
    if not isinstance(text, Mapping) or not isinstance(tower, Mapping):
        raise ConfigurationError("config.json lacks llm_config or vision_config; InternVLChatModel needs both.")
    if config.get("ps_version", "v2") != "v2":
        raise ConfigurationError(f"config.json has ps_version {config['ps_version']!r}; only 'v2' is supported.")
    internlm2 = text.get("model_type") == "internlm2"
    renamed = {"model_type": "llama", "attention_bias": text.get("bias", False)} if internlm2 else {}
    return {
        **config,
        "model_type": "internvl",
        "tie_word_embeddings": text.get("tie_word_embeddings", False),
        "text_config": {**text, **renamed},
        "vision_config": {
            **tower,
            "image_size": config.get("force_image_size") or tower.get("image_size", 448),
            "attention_bias": tower.get("qkv_bias", True),
            "use_qk_norm": tower.get("qk_normalization", False),
        },
        "vision_feature_layer": config.get("select_layer", -1),
    }


def _decoder(config: Config) -> DecoderConfig:
    return read_inner_text(as_transformers(config))


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return TileVit(vision(as_transformers(config)), dtype, device)


def _processor(checkpoint: Checkpoint) -> TileImageProcessor:
    """Tiles as config.json wants them; the authors' code does not read preprocessor_config.json."""
    config = checkpoint.config
    tower = vision(as_transformers(config))
    dynamic = bool(config.get("dynamic_image_size", True))
    return TileImageProcessor(
        tile=tower.image_size,
        tokens_per_tile=tower.tokens_per_tile,
        cost_per_tile=tower.side**2,
        token_ids=(checkpoint.token_id("<img>"), _slot(checkpoint), checkpoint.token_id("</img>")),
        min_tiles=int(config.get("min_dynamic_patch", 1)) if dynamic else 1,
        max_tiles=int(config.get("max_dynamic_patch", 12)) if dynamic else 1,
        thumbnail=bool(config.get("use_thumbnail", True)),
        by_pillow=True,
    )


def _slot(checkpoint: Checkpoint) -> int:
    return checkpoint.token_id("<IMG_CONTEXT>")


def _rename(name: str) -> tuple[str, str] | None:
    if name.startswith(("vision_model.", "mlp1.")):
        return "vision", replaced(name, _TOWER)
    found = rename_text_part(replaced(name.removeprefix("language_model."), _INTERNLM2))
    return ("decoder", "lm_head.weight") if found == ("decoder", "output.weight") else found


def _split_qkv(config: Config, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """InternLM2 stores, for every head of k and v, the q heads that share it, then its k, then its v."""
    shape = _decoder(config)
    group = shape.num_attention_heads // shape.num_key_value_heads
    result: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if ".wqkv." not in name:
            result[name] = tensor
            continue
        wanted = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
        if len(tensor) != wanted:
            raise ConfigurationError(
                f"Tensor {name!r} of the decoder has {len(tensor)} rows; llm_config in config.json asks for {wanted}."
            )
        rows = tensor.view(shape.num_key_value_heads, group + 2, shape.head_dim, *tensor.shape[1:])
        parts = {"q": rows[:, :group], "k": rows[:, group], "v": rows[:, group + 1]}
        result |= {name.replace("wqkv", f"{part}_proj"): x.reshape(-1, *tensor.shape[1:]) for part, x in parts.items()}
    return result


FAMILY = Family(
    name="internvl_chat",
    architectures=("InternVLChatModel",),
    decoder=_decoder,
    rename=_rename,
    convert=_split_qkv,
    media={
        "image": Media(processor=_processor, placeholder=_slot, marker="<IMG_CONTEXT>", spellings=("<image>",)),
        "video": tile_video(_processor, _slot),
    },
    encoders={"vision": _encoder},
)
