"""JSON body -> pydantic model, and what can be wrong with it as one plain sentence and a field path."""

from __future__ import annotations

import math
import re
from typing import Any, TypeVar

import pydantic

from sensorium.errors import InvalidRequest

Model = TypeVar("Model", bound=pydantic.BaseModel)

MAX_VALUES = 2_000_000  # of a body; a byte of JSON can become fifty of memory
MAX_DEPTH = 32  # of JSON values that are handed on as they are
MAX_ERRORS = 1000  # of a body; pydantic lists all of them or none, and a list of millions takes gigabytes

# pydantic's error type -> what the field has to be.
EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing_size": "an integer of at most 64 bits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
JSON_NAMES = {"NoneType": "null", "bool": "a boolean", "str": "a string", "int": "a number", "float": "a number"}


def parse_body(model: type[Model], raw: bytes) -> Model:
    """Read `raw` as `model`.

    Raises:
        InvalidRequest: with the first error's field path, such as `messages[0].role`, as `param`.
    """
    if not raw:
        raise InvalidRequest("The request's body is empty; send a JSON object.")
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise InvalidRequest(f"The request's body holds more than {MAX_VALUES:,} commas and brackets; send less.")
    try:
        return model.model_validate_json(raw)
    except pydantic.ValidationError as error:
        if error.error_count() > MAX_ERRORS:
            raise InvalidRequest(f"The request's body has {error.error_count():,} values that are not valid.") from None
        raise _refusal(error.errors(include_url=False)[0]) from None


def _refusal(error: Any) -> InvalidRequest:
    kind, context, value = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "json_invalid":
        place = re.search(r"line (\d+) column (\d+)", str(context.get("error", "")))
        where = f" at line {place[1]}, column {place[2]}" if place else ""
        return InvalidRequest(f"The request's body is not valid JSON{where}.", code="invalid_json")
    path = field_path(error["loc"])
    name = f"`{path}`" if path else "The request's body"
    if kind == "missing":
        return InvalidRequest(f"{name} is required.", param=path)
    if kind == "value_error":  # raised by our own validators: the sentence is ours
        return InvalidRequest(f"{name} {context['error']}.", param=path)
    if bound := next((bound for bound in ("ge", "le", "gt", "lt") if bound in context), None):
        words = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}
        return InvalidRequest(f"{name} must be {words[bound]} {context[bound]}.", param=path)
    if kind == "literal_error":
        return InvalidRequest(f"{name} must be one of {context['expected']}.", param=path)
    expected = EXPECTED.get(kind)
    if expected is None:
        return InvalidRequest(f"{name} is not valid ({kind.replace('_', ' ')}).", param=path or None)
    return InvalidRequest(f"{name} must be {expected}, not {json_name(value)}.", param=path or None)


def json_name(value: object) -> str:
    """Name the JSON type of `value`."""
    return JSON_NAMES.get(type(value).__name__, "a list" if isinstance(value, list | tuple) else "an object")


def field_path(parts: tuple[str | int, ...]) -> str:
    """Write ("messages", 0, "role") as `messages[0].role`."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def check_plain(value: object, path: str, depth: int = 0) -> None:
    """Refuse what other processes could not read: too deep, integers of more than 64 bits, NaN and infinity."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"`{path}` is nested deeper than {MAX_DEPTH} levels.", param=path)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise InvalidRequest(f"`{path}` holds an integer of more than 64 bits.", param=path)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"`{path}` holds a number that is not finite.", param=path)
    children: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        check_plain(child, path, depth + 1)
