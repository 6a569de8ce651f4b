"""A server's answers -> values, and its refusals -> errors."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import httpx
import msgspec

from sensorium import errors
from sensorium.errors import SensoriumError

_BY_STATUS: dict[int, type[SensoriumError]] = {
    kind.status: kind
    for kind in (errors.InvalidRequest, errors.Unauthorized, errors.ModelNotFound, errors.TooLarge, errors.Overloaded)
}
_DONE = "[DONE]"


def read(response: httpx.Response, kind: Any) -> Any:
    """Return a whole answer.

    Raises:
        SensoriumError: the server refused, or answered something else.
    """
    if response.status_code != httpx.codes.OK:
        raise refusal(response)
    try:
        return convert(response.json(), kind)
    except ValueError:
        raise SensoriumError(f"{response.url} answered something that is not JSON.") from None


def convert(body: Any, kind: Any) -> Any:
    """Return a body, or an event of a stream, as a value of type `kind`; fields it does not have are left out.

    Raises:
        SensoriumError: it is an error, or something else.
    """
    if isinstance(body, dict) and (body.get("object") == "error" or isinstance(body.get("error"), dict)):
        raise SensoriumError(_words(body) or "The server failed.")
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise SensoriumError(f"The server sent something that is no {kind.__name__}: {error}") from None


def refusal(response: httpx.Response) -> SensoriumError:
    """Return the error that the server's answer stands for."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    message = _words(body) or f"{response.url} answered {response.status_code}: {response.text[:200]}"
    inner = body.get("error") if isinstance(body, dict) else None
    details = inner if isinstance(inner, dict) else body if isinstance(body, dict) else {}
    param, code = (value if isinstance(value := details.get(name), str) else None for name in ("param", "code"))
    return _BY_STATUS.get(response.status_code, SensoriumError)(message, param=param, code=code)


def _words(body: Any) -> str:
    """Return the message of an error body of OpenAI's, vLLM's or swift's form; "": there is none."""
    if not isinstance(body, dict):
        return ""
    inner = body.get("error")
    found = inner.get("message") if isinstance(inner, dict) else body.get("message") or body.get("detail") or inner
    return found if isinstance(found, str) else ""


class Line(NamedTuple):
    """One line of a stream: an event, the end, or neither."""

    event: dict[str, Any] | None = None
    is_end: bool = False


def parse_line(text: str) -> Line:
    """Read one line of a stream.

    Raises:
        SensoriumError: it is no event.
    """
    if not text.startswith("data:"):
        return Line()  # blank, or a comment
    data = text.removeprefix("data:").strip()
    if data == _DONE:
        return Line(is_end=True)
    try:
        return Line(json.loads(data))
    except ValueError:
        raise SensoriumError("The server sent an event that is not JSON.") from None
