"""Which family serves which checkpoint: `architectures[0]` of config.json -> module.

Where one architecture is several families, a key of config.json that tells them apart stands behind it: MiniCPM's
`version`, LLaVA's `mm_projector_type`, the parts that only some of the first Qwens have. A new family is one module
with a `FAMILY` constant, its rows here, and a row in the tests. Importing this imports no family, so the gateway can
ask what a checkpoint takes before any worker has loaded it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sensorium.errors import ConfigurationError

if TYPE_CHECKING:
    from sensorium.families.family import Config, Family
    from sensorium.types import Modality

_TELLING = ("version", "mm_projector_type")  # keys whose values tell them apart
_PARTS = {"QWenLMHeadModel": ("visual", "audio")}  # keys that only some have
MODULES = {
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
    "Qwen3VLForConditionalGeneration": "qwen3_vl",
    "Qwen2AudioForConditionalGeneration": "qwen2_audio",
    "LlavaForConditionalGeneration": "llava",
    "LlavaLlamaForCausalLM mlp2x_gelu": "llava_llama",
    "LlavaLlamaForCausalLM mlp2x_gelu_Norm": "yi_vl",
    "SmolVLMForConditionalGeneration": "smolvlm",
    "InternVLForConditionalGeneration": "internvl",
    "InternVLChatModel": "internvl_chat",
    "MiniCPMV 2.5": "minicpm_v_2_5",
    "MiniCPMV 2.6": "minicpm_v_2_6",
    "MiniCPMV 4.0": "minicpm_v_4_0",
    "QWenLMHeadModel visual": "qwen_vl",
    "QWenLMHeadModel": "qwen",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
}

MEDIA: dict[str, tuple[Modality, ...]] = {  # by module: what it takes beside text
    "qwen2_vl": ("image", "video"),
    "qwen2_5_vl": ("image", "video"),
    "qwen3_vl": ("image", "video"),
    "qwen2_audio": ("audio",),
    "llava": ("image",),
    "llava_llama": ("image",),
    "yi_vl": ("image",),
    "qwen_vl": ("image",),
    "smolvlm": ("image",),
    "internvl": ("image", "video"),
    "internvl_chat": ("image", "video"),
    "minicpm_v_2_5": ("image",),
    "minicpm_v_2_6": ("image", "video"),
    "minicpm_v_4_0": ("image", "video"),
}


def media(config: Config) -> tuple[Modality, ...] | None:
    """Return what the checkpoint with this config.json takes beside text; None where no family serves it."""
    module = MODULES.get(_name(config))
    return None if module is None else MEDIA.get(module, ())


def serves(config: Config) -> bool:
    """Whether a family serves the checkpoint with this config.json."""
    return _name(config) in MODULES


def find(config: Config) -> Family:
    """Return the family that serves the checkpoint with this config.json; only its module is imported.

    Raises:
        ConfigurationError: no family serves the architecture, or the file names none.
    """
    known = ", ".join(MODULES)
    name = _name(config)
    if not name:
        raise ConfigurationError(f"config.json names no architecture (key 'architectures'); known ones: {known}.")
    module = MODULES.get(name)
    if module is None:
        raise ConfigurationError(f"Architecture {name!r} is not supported; supported: {known}.")
    family: Family = import_module(f"sensorium.families.{module}").FAMILY
    return family


def _name(config: Config) -> str:
    """Return what MODULES calls the checkpoint's architecture; "" where the file names none."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return ""
    name = str(architectures[0])
    if parts := [part for part in _PARTS.get(name, ()) if config.get(part)]:
        return " ".join([name, *parts])
    names = [name, *(f"{name} {config[key]}" for key in _TELLING if key in config)]
    return next((each for each in names if each in MODULES), names[-1])
