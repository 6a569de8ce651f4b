"""LLaVA-1.5 as its authors publish it: names of their own, and a CLIP tower that is another checkpoint.

Source: `llava/` of haotian-liu/LLaVA. A picture is padded to a square with the mean colour, so that nothing is cut off
(llava-hf cuts the middle out), and text behind a picture is tokenized as if it were the first.
"""

from __future__ import annotations

from functools import partial

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.clip_image import ClipImageProcessor
from sensorium.families.decoder_config import vision_part
from sensorium.families.family import Config, Encoder, Family, Media, Tower
from sensorium.families.inner_text import read_inner_text
from sensorium.families.llava import vision
from sensorium.families.names import rename_clip, rename_text_part, replaced
from sensorium.model.config import DecoderConfig
from sensorium.model.encoders.tile_vit import TileVit

IMAGE = "<image>"
# `conv_vicuna_v1`, which the models were trained with. A system message replaces its first sentences.
_TEMPLATE = """
{%- macro said(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content if part['type'] == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}
{{- content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\\n') -}}
{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}{{ said(messages[0]['content']) + ' ' }}{%- else -%}
{{- "A chat between a curious user and an artificial intelligence assistant. " -}}
{{- "The assistant gives helpful, detailed, and polite answers to the user's questions. " -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{ 'USER: ' + said(message['content']) + ' ' }}
{%- elif message['role'] == 'assistant' -%}{{ 'ASSISTANT: ' + said(message['content']) + eos_token }}
{%- elif not (loop.first and message['role'] == 'system') -%}
{{- raise_exception('roles are user and assistant, and system for the first message; not ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""
# What CLIPVisionConfig takes where the tower's config.json is silent.
_CLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
_PROJECTOR = (("model.mm_projector.0.", "projector.linear_1."), ("model.mm_projector.2.", "projector.linear_2."))
_SELECTED = {"patch": "default", "cls_patch": "full"}


def as_transformers(config: Config) -> Config:
    """Return what transformers' config of the same model would say.

    Raises:
        ConfigurationError: the file asks for pictures in tiles, or for another thing only later versions have.
    """
    aspect, merge = config.get("image_aspect_ratio"), config.get("mm_patch_merge_type", "flat")
    wrong = {
        "image_aspect_ratio": aspect if aspect not in (None, "square", "pad") else None,
        "mm_patch_merge_type": merge if merge != "flat" else None,
        "mm_use_im_start_end": config.get("mm_use_im_start_end") or None,
        "s2": config.get("s2") or None,
    }
    for key, value in wrong.items():
        if value is not None:
            raise ConfigurationError(
                f"config.json has {key} {value!r}, which is not supported for {config['architectures'][0]}; supported "
                "are models that see a picture as one square, as LLaVA-1.5 does (image_aspect_ratio 'pad')."
            )
    selected = config.get("mm_vision_select_feature", "patch")
    return {
        **config,
        "text_config": {**config, "model_type": "llama"},
        "vision_config": _CLIP | dict(vision_part(config)) | {"model_type": "clip_vision_model"},
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": _SELECTED.get(selected, selected),
    }


def decoder(config: Config) -> DecoderConfig:
    """The decoder's shape: config.json is that of a Llama with more keys."""
    return read_inner_text({**config, "model_type": "llama"})


def tower(config: Config) -> Tower:
    """Where the tower is.

    Raises:
        ConfigurationError: config.json does not say.
    """
    name = config.get("mm_vision_tower") or config.get("vision_tower")
    if not isinstance(name, str):
        raise ConfigurationError("config.json has no mm_vision_tower; this model needs one.")
    return Tower(name, "mm_vision_tower", _rename_tower, bool(config.get("unfreeze_mm_vision_tower", False)))


def _rename_tower(name: str) -> tuple[str, str] | None:
    """Of a whole CLIP only what sees is needed."""
    return rename_clip(name) if name.startswith("vision_model.") else None


def rename(name: str, projector: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    """Name of a tensor of the main checkpoint; `projector`: its layers' names -> ours."""
    if name.startswith("model.mm_projector."):
        return "vision", replaced(name, projector)
    if name.startswith("model.vision_tower.vision_tower."):
        return rename_clip(name.removeprefix("model.vision_tower.vision_tower."))
    return rename_text_part(name)


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return TileVit(vision(as_transformers(config)), dtype, device)


def image(marker: str, spellings: tuple[str, ...] = ()) -> Media:
    """How pictures are taken; `marker` stands for one in the prompt, and is no token of the checkpoint's."""
    return Media(
        processor=_processor,
        placeholder=lambda checkpoint: checkpoint.token_id(marker),
        marker=marker,
        spellings=spellings,
    )


def _processor(checkpoint: Checkpoint) -> ClipImageProcessor:
    shape = vision(as_transformers(checkpoint.config))
    return ClipImageProcessor.read(
        checkpoint.image_settings,
        side=shape.image_size,
        num_tokens=shape.tokens_per_tile,
        cost=shape.side**2,
        pad=checkpoint.config.get("image_aspect_ratio") == "pad",
        slot=0,  # <unk>: the marker's own id has no embedding
        by_pillow=True,
    )


FAMILY = Family(
    name="llava_llama",
    architectures=("LlavaLlamaForCausalLM mlp2x_gelu",),
    decoder=decoder,
    rename=partial(rename, projector=_PROJECTOR),
    media={"image": image(IMAGE)},
    encoders={"vision": _encoder},
    chat_template=_TEMPLATE,
    cut_at=(IMAGE,),
    tower=tower,
)
