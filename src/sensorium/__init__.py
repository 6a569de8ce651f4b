"""Sensorium serves models which see, hear and watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sensorium.llm import LLM
    from sensorium.lora.request import LoRARequest
    from sensorium.types import SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "LoRARequest", "SamplingParams"]


def __getattr__(name: str) -> object:
    # Lazy, because `import sensorium` is on the gateway's way and LLM pulls in torch.
    if name == "LLM":
        from sensorium.llm import LLM

        return LLM
    if name == "LoRARequest":
        from sensorium.lora.request import LoRARequest

        return LoRARequest
    if name == "SamplingParams":
        from sensorium.types import SamplingParams

        return SamplingParams
    raise AttributeError(f"module 'sensorium' has no attribute {name!r}")
