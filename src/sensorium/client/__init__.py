"""Ask a running server from a program. `sensorium.llm` has the same names, where ms-swift has them."""

from __future__ import annotations

from sensorium.client.functions import (
    get_model_list_client,
    get_model_list_client_async,
    inference_client,
    inference_client_async,
)
from sensorium.client.media import convert_to_base64
from sensorium.client.types import XRequestConfig

__all__ = [
    "XRequestConfig",
    "convert_to_base64",
    "get_model_list_client",
    "get_model_list_client_async",
    "inference_client",
    "inference_client_async",
]
