"""Which family serves which checkpoint: `architectures[0]` of config.json -> module.

A new family is one module with a `FAMILY` constant, its rows here, and a row in the tests.
"""

from __future__ import annotations

from importlib import import_module

from sensorium.errors import ConfigurationError
from sensorium.families.family import Config, Family

MODULES = {
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
    "Qwen3VLForConditionalGeneration": "qwen3_vl",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
}


def serves(config: Config) -> bool:
    """Whether a family serves the checkpoint with this config.json."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and bool(architectures) and str(architectures[0]) in MODULES


def find(config: Config) -> Family:
    """Return the family that serves the checkpoint with this config.json; only its module is imported.

    Raises:
        ConfigurationError: no family serves the architecture, or the file names none.
    """
    architectures = config.get("architectures")
    known = ", ".join(MODULES)
    if not isinstance(architectures, list) or not architectures:
        raise ConfigurationError(f"config.json names no architecture (key 'architectures'); known ones: {known}.")
    module = MODULES.get(str(architectures[0]))
    if module is None:
        raise ConfigurationError(f"Architecture {architectures[0]!r} is not supported; supported: {known}.")
    family: Family = import_module(f"sensorium.families.{module}").FAMILY
    return family
