"""Yi-VL: original LLaVA with a tower of its own below `vit/`, norms in the projector, and another form of prompt.

Source: `VL/` of 01-ai/Yi.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from sensorium.families.family import Config, Encoder, Family
from sensorium.families.llava import vision
from sensorium.families.llava_llama import as_transformers, decoder, image, rename, tower
from sensorium.model.encoders.tile_vit import TileVit

IMAGE = "<image_placeholder>"
# `mm_default_conv`. A system message replaces its first paragraph.
_TEMPLATE = """
{%- macro said(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content if part['type'] == 'image' -%}{{ '<image_placeholder>\\n' }}{%- endfor -%}
{{- content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\\n') -}}
{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}{{ said(messages[0]['content']) }}{%- else -%}
{{- "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. " -}}
{{- "Read all the images carefully, and respond to the human's questions with informative, helpful, detailed and " -}}
{{- "polite answers. 这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。" -}}
{{- "仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。" -}}
{%- endif -%}
{{- '\\n\\n### ' -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{ 'Human: ' + said(message['content']) + '\\n### ' }}
{%- elif message['role'] == 'assistant' -%}{{ 'Assistant: ' + said(message['content']) + '\\n### ' }}
{%- elif not (loop.first and message['role'] == 'system') -%}
{{- raise_exception('roles are user and assistant, and system for the first message; not ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}
"""
_PROJECTOR = (
    ("model.mm_projector.0.", "projector.linear_1."),
    ("model.mm_projector.1.", "projector.norm_1."),
    ("model.mm_projector.3.", "projector.linear_2."),
    ("model.mm_projector.4.", "projector.norm_2."),
)


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    shape = replace(vision(as_transformers(config)), projector_after_norms=True)
    return TileVit(shape, dtype, device)


FAMILY = Family(
    name="yi_vl",
    architectures=("LlavaLlamaForCausalLM mlp2x_gelu_Norm",),
    decoder=decoder,
    rename=partial(rename, projector=_PROJECTOR),
    media={"image": image(IMAGE, ("<image>",))},
    encoders={"vision": _encoder},
    end_texts=("\n###", "###"),
    chat_template=_TEMPLATE,
    cut_at=(IMAGE,),
    tower=tower,
)
