"""An error as a JSON body that OpenAI's, vLLM's, swift's and rtp-llm's clients all read."""

from __future__ import annotations

from typing import Any

from sensorium.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    MediaError,
    Overloaded,
    SensoriumError,
)

# rtp-llm's numbers, from its config/exceptions.py; the nearest class counts.
_RTP: dict[type[SensoriumError], int] = {
    ContextLengthExceeded: 511,  # LONG_PROMPT_ERROR
    MediaError: 903,  # MM_PROCESS_ERROR
    InvalidRequest: 507,  # ERROR_INPUT_FORMAT_ERROR
    Overloaded: 409,  # CONCURRENCY_LIMIT_ERROR
    SensoriumError: 514,  # UNKNOWN_ERROR
}


def error_body(error: SensoriumError, **more: Any) -> dict[str, Any]:
    """Return OpenAI's `{"error": {...}}` together with vLLM's and swift's flat form, and rtp-llm's `error_code`.

    `more` is put into the inner object too, such as what a model that is being loaded is at.
    """
    flat = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    number = next(_RTP[kind] for kind in type(error).__mro__ if kind in _RTP)
    return {"error": {**flat, **more}, "object": "error", **flat, "error_code": number}
