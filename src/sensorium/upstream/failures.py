"""What an upstream answers instead of an answer -> our errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sensorium.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelUnavailable,
    SensoriumError,
    UpstreamFailed,
)

# Codes of errors, by which they are told apart here and by clients.
LOST, UNREACHABLE, TIMED_OUT = "upstream_lost", "upstream_unreachable", "upstream_timeout"
KEY_REFUSED, NO_MODEL = "upstream_refuses_key", "upstream_has_no_such_model"

_LONGEST = 2000
_SUFFIX = re.compile(r" \(parameter=.*\)$", re.S)  # vLLM repeats `param` there
_CONTEXT = re.compile(r"context (length|window)|max_model_len|maximum model length", re.I)
_RETRY_S = 5


def failure(
    status: int,
    body: str | Mapping[str, Any],
    *,
    who: str,
    model: str,
    retry_after: str | None = None,
    places: Mapping[str, str] | None = None,
) -> SensoriumError:
    """Return the error that an upstream's status and body stand for.

    Only what it says about the client's own request is passed on: the rest is between the two servers.

    Args:
        who: the upstream, for messages: "vLLM", or its address.
        places: see `body.Body`; of a request with one media item, errors about media name that.
    """
    message, param, code = _said(body)
    if status in (401, 403):
        return ModelUnavailable(
            f"{who} refuses the key that this server has for it (status {status}). The operator has to give another.",
            code=KEY_REFUSED,
        )
    if status == 404 and (param == "model" or code == "model_not_found" or not message):
        return ModelUnavailable(f"{who} does not serve the model {model!r}.", code=NO_MODEL)
    if status in (429, 503):
        seconds = int(retry_after) if retry_after and re.fullmatch("[0-9]{1,6}", retry_after) else _RETRY_S
        return ModelUnavailable(
            f"{who} is {'busy' if status == 429 else 'not available'} now; try again in {seconds} s.",
            retry_after_s=seconds,
        )
    if 400 <= status < 500 and message:
        message, param = _placed(message, param, places or {})
        if code == "context_length_exceeded" or _CONTEXT.search(message):
            return ContextLengthExceeded(message, param=None if param == "input_tokens" else param)
        return InvalidRequest(message, param=param, code=code)
    if 300 <= status < 400:
        return UpstreamFailed(f"{who} sent a redirect (status {status}); redirects are not followed.")
    return UpstreamFailed(f"{who} failed (status {status}); its own log says why. Send the request again.")


def stream_failure(error: Mapping[str, Any], **context: Any) -> SensoriumError:
    """Return the error that stands in a stream."""
    code = error.get("code")
    return failure(code if isinstance(code, int) else 500, {"error": error}, **context)


def _said(body: str | Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Return message, param and code, in whichever of the usual forms."""
    given: Any = body
    if isinstance(body, str):
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            return "", None, None
    if not isinstance(given, Mapping):
        return "", None, None
    error = given.get("error", given)
    if isinstance(error, str):
        return error[:_LONGEST], None, None
    if not isinstance(error, Mapping):
        return "", None, None
    message, param, code = (error.get(name) for name in ("message", "param", "code"))
    if message is None:
        message = given.get("detail")
    return (
        _SUFFIX.sub("", message)[:_LONGEST] if isinstance(message, str) else "",
        param if isinstance(param, str) else None,
        code if isinstance(code, str) else None,
    )


def _placed(message: str, param: str | None, places: Mapping[str, str]) -> tuple[str, str | None]:
    """Let an error name the client's own place of a media item."""
    for ours, theirs in places.items():
        if param is not None and (param == ours or param.startswith(f"{ours}.")):
            return message.replace(param, theirs).replace(ours, theirs), theirs
    if param is None and len(places) == 1 and re.search(r"image|video|audio|media|multi-?modal", message, re.I):
        (where,) = places.values()
        return f"{where}: {message}", where
    return message, param
