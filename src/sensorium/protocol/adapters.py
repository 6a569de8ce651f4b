"""/v1/load_lora_adapter and /v1/unload_lora_adapter: their bodies, as vLLM has them."""

from __future__ import annotations

import pydantic
from pydantic import ConfigDict

from sensorium.protocol.fields import Bool


class LoadAdapterBody(pydantic.BaseModel):
    """The body of POST /v1/load_lora_adapter. `base_model_name` is needed where several models are served."""

    model_config = ConfigDict(extra="allow")

    lora_name: str | None = None
    lora_path: str | None = None
    load_inplace: Bool | None = None
    base_model_name: str | None = None


class UnloadAdapterBody(pydantic.BaseModel):
    """The body of POST /v1/unload_lora_adapter."""

    model_config = ConfigDict(extra="allow")

    lora_name: str | None = None
