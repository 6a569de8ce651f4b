"""Sensorium serves models which see, hear and watch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sensorium.auto_tokenizer import AutoTokenizer
    from sensorium.llm import LLM
    from sensorium.lora.request import LoRARequest
    from sensorium.model_factory import ModelConfig, ModelFactory
    from sensorium.pipeline import Pipeline
    from sensorium.types import SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "AutoTokenizer", "LoRARequest", "ModelConfig", "ModelFactory", "Pipeline", "SamplingParams"]

# Lazy, because `import sensorium` is on the gateway's way and LLM pulls in numpy and Pillow.
_WHERE = {
    "AutoTokenizer": "auto_tokenizer",
    "LLM": "llm",
    "LoRARequest": "lora.request",
    "ModelConfig": "model_factory",
    "ModelFactory": "model_factory",
    "Pipeline": "pipeline",
    "SamplingParams": "types",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'sensorium' has no attribute {name!r}")
    return getattr(import_module(f"sensorium.{_WHERE[name]}"), name)
