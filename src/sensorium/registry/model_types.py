"""The names that ms-swift 2.x gives models, and what each stands for.

From ms-swift 2.6.1, llm/utils/model.py (`@register_model`).
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from sensorium.errors import ConfigurationError
from sensorium.settings import Hub


class ModelType(NamedTuple):
    """One name: its ids on the hubs, what config.json says of such models, and swift's name of its prompt form."""

    huggingface: str
    modelscope: str
    architectures: tuple[str, ...]
    template: str


MODEL_TYPES = {
    "qwen-vl-chat": ModelType("Qwen/Qwen-VL-Chat", "qwen/Qwen-VL-Chat", ("QWenLMHeadModel",), "qwen-vl"),
    "yi-vl-6b-chat": ModelType("01-ai/Yi-VL-6B", "01ai/Yi-VL-6B", ("LlavaLlamaForCausalLM",), "yi-vl"),
    "minicpm-v-v2_5-chat": ModelType(
        "openbmb/MiniCPM-Llama3-V-2_5", "OpenBMB/MiniCPM-Llama3-V-2_5", ("MiniCPMV",), "minicpm-v-v2_5"
    ),
    "minicpm-v-v2_6-chat": ModelType("openbmb/MiniCPM-V-2_6", "OpenBMB/MiniCPM-V-2_6", ("MiniCPMV",), "minicpm-v-v2_6"),
    "qwen2-audio-7b-instruct": ModelType(
        "Qwen/Qwen2-Audio-7B-Instruct",
        "qwen/Qwen2-Audio-7B-Instruct",
        ("Qwen2AudioForConditionalGeneration",),
        "qwen2-audio",
    ),
    "internvl2-2b": ModelType(
        "OpenGVLab/InternVL2-2B",
        "OpenGVLab/InternVL2-2B",
        ("InternVLChatModel", "InternVLForConditionalGeneration"),
        "internvl2",
    ),
    "llava1_5-7b-instruct": ModelType(
        "llava-hf/llava-1.5-7b-hf", "swift/llava-1.5-7b-hf", ("LlavaForConditionalGeneration",), "llava1_5"
    ),
}


def model_type(name: str) -> ModelType:
    """Return what `name` stands for.

    Raises:
        ConfigurationError: it is not known; the message has those that are.
    """
    if name not in MODEL_TYPES:
        near = difflib.get_close_matches(name, MODEL_TYPES, 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(
            f"The model type {name!r} is not known.{hint} Known: {', '.join(MODEL_TYPES)}. For any other model give "
            "--model_id_or_path DIR, or its hub id."
        )
    return MODEL_TYPES[name]


def hub_id(name: str, hub: Hub) -> str:
    """Return the id under which `hub` has the model type `name`.

    Raises:
        ConfigurationError: the name is not known.
    """
    found = model_type(name)
    return found.modelscope if hub == "modelscope" else found.huggingface


def named(model_id: str) -> str | None:
    """Return the model type whose hub id is `model_id` on either hub, in any case; None if there is none."""
    for name, row in MODEL_TYPES.items():
        if model_id.lower() in (row.huggingface.lower(), row.modelscope.lower()):
            return name
    return None
