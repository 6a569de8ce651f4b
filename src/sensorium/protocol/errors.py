"""An error as a JSON body that OpenAI's, vLLM's and swift's clients all read."""

from __future__ import annotations

from typing import Any

from sensorium.errors import SensoriumError


def error_body(error: SensoriumError) -> dict[str, Any]:
    """Return OpenAI's `{"error": {...}}` together with vLLM's and swift's flat form of the same."""
    flat = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": flat, "object": "error", **flat}
