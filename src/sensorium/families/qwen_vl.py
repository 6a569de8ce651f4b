"""Qwen-VL, the first: a ViT of 448 x 448 pixels, 256 queries that look at it, and the first Qwen.

The authors write a picture's address between <img> and </img> and fill it up to 256 tokens, which the encoder's rows
replace; here the slots are there whatever the picture's source is, so no address is too long.
"""

from __future__ import annotations

from typing import Any

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import Config, Encoder, Family, Media
from sensorium.families.names import replaced
from sensorium.families.qwen import CHAT_FORMATS, END_TOKENS, read_qwen, split_qkv
from sensorium.families.qwen import rename as rename_text
from sensorium.families.square_image import SquareImageProcessor
from sensorium.model.encoders.query_vit import QueryVit
from sensorium.model.encoders.tile_vit import TileVitConfig

_POOL = (("attn_pool.", "resampler."), ("ln_post.", "resampler.ln_post."))
_TOWER = (
    ("conv1.", "patch."),
    ("positional_embedding", "positions"),
    ("ln_pre.", "first_norm."),
    ("transformer.resblocks.", "layers."),
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".attn.in_proj.", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
_KEYS = ("layers", "width", "heads", "mlp_ratio", "image_size", "patch_size", "output_dim")


def _visual(config: Config) -> Any:
    """Return the part of config.json about the tower.

    Raises:
        ConfigurationError: it is not complete, or another size than the decoder's comes out of the tower.
    """
    part = config["visual"]
    missing = [key for key in _KEYS if key not in part]
    if missing:
        raise ConfigurationError(f"'visual' in config.json lacks {', '.join(missing)}.")
    if part["output_dim"] != config.get("hidden_size"):
        raise ConfigurationError(
            f"'visual' in config.json has output_dim {part['output_dim']}, the decoder hidden_size "
            f"{config.get('hidden_size')}; they must be equal."
        )
    return part


def _num_queries(config: Config) -> int:
    return int(_visual(config).get("n_queries", 256))


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    part = _visual(config)
    tower = TileVitConfig(
        num_layers=part["layers"],
        hidden_size=part["width"],
        num_heads=part["heads"],
        intermediate_size=int(part["width"] * part["mlp_ratio"]),
        image_size=part["image_size"],
        patch_size=part["patch_size"],
        out_hidden_size=part["output_dim"],
        hidden_act="gelu",
        eps=1e-6,
    )
    return QueryVit(tower, _num_queries(config), dtype, device)


def _processor(checkpoint: Checkpoint) -> SquareImageProcessor:
    part = _visual(checkpoint.config)
    patches = (part["image_size"] // part["patch_size"]) ** 2
    return SquareImageProcessor(part["image_size"], _num_queries(checkpoint.config), cost=patches)


def _rename(name: str) -> tuple[str, str] | None:
    ours = name.removeprefix("transformer.visual.")
    if ours == name:
        return rename_text(name)
    if ours.startswith(("attn_pool.", "ln_post.")):
        return "vision", replaced(ours, _POOL)
    return "vision", "resampler.proj" if ours == "proj" else replaced(ours, _TOWER)


FAMILY = Family(
    name="qwen_vl",
    architectures=("QWenLMHeadModel visual",),
    decoder=read_qwen,
    rename=_rename,
    convert=split_qkv,
    media={
        "image": Media(
            processor=_processor,
            placeholder=lambda checkpoint: checkpoint.token_id("<imgpad>"),
            marker="<img><imgpad></img>",
            spellings=("<img></img>",),
        )
    },
    encoders={"vision": _encoder},
    end_tokens=END_TOKENS,
    chat_formats=CHAT_FORMATS,
)
