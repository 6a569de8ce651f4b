"""JSON responses, and errors as responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from sensorium.errors import InvalidRequest, ModelNotFound, SensoriumError, Unauthorized
from sensorium.protocol.errors import error_body

_encoder = msgspec.json.Encoder()


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `value` as JSON."""
    return Response(_encoder.encode(value), status, headers, media_type="application/json")


def error_response(
    error: SensoriumError,
    close: bool = False,
    inner: Mapping[str, Any] | None = None,
    outer: Mapping[str, Any] | None = None,
) -> Response:
    """Return `error` with its status and the superset body.

    Args:
        close: end the connection after it.
        inner: more keys of `error`'s object; `outer`: of the body.
    """
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if close:
        headers["Connection"] = "close"
    return json_response({**error_body(error, **(inner or {})), **(outer or {})}, error.status, headers)


def routing_error(status: int, method: str, path: str, headers: dict[str, str] | None) -> Response:
    """Return the error of a request that no route takes: 404, 405 and the like, in the same form as all others."""
    shown = f"{method} {path[:200]!r}"
    error: SensoriumError
    if status == 404:
        error = ModelNotFound(f"There is no {shown}; /docs lists what there is.", code="not_found")
    else:
        allowed = {name.lower(): value for name, value in (headers or {}).items()}.get("allow", "")
        instead = f" Use {allowed.replace(', ', ' or ')};" if allowed else ""
        error = InvalidRequest(f"{shown} is not served.{instead} /docs lists what is.", code="method_not_allowed")
    return json_response(error_body(error), status, headers)
