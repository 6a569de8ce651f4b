"""How big a string a chat template may make, checked before it is made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

MAX_CHARACTERS = 8_000_000  # of the rendered prompt, and of every string on the way
_WIDTH = re.compile(r"\d{6,}")  # "%999999999d" and "{:>999999999}"
_SIZED_FILTERS = {"center", "indent", "batch", "slice", "round", "wordwrap"}  # their numbers are sizes
_SIZED_METHODS = {"center", "ljust", "rjust", "zfill", "expandtabs"}


class TemplateTooBig(Exception):
    """The template ran or wrote past a ceiling."""


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Refuse `left operator right` where the result would be huge."""
    if operator == "+":
        big = isinstance(left, (str, list, tuple)) and len(left) + _size(right) > MAX_CHARACTERS
    elif operator == "*":
        sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
        big = _size(sized) * _number(times) > MAX_CHARACTERS or _digits(left) + _digits(right) > 4096
    elif operator == "**":
        big = _digits(left) * _number(right) > 4096
    else:
        big = isinstance(left, str) and _WIDTH.search(left) is not None
    if big:
        raise TemplateTooBig


def check_string(name: str, text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse the string method or filter `name` where the result would be huge."""
    values = [*args, *kwargs.values()]
    if name in _SIZED_METHODS:
        big = any(_number(value) > MAX_CHARACTERS for value in values)
        big = big or (name == "expandtabs" and len(text) * max([8, *map(_number, values)]) > MAX_CHARACTERS)
    elif name == "replace" and len(values) >= 2:
        big = (text.count(str(values[0])) * len(str(values[1]))) > MAX_CHARACTERS
    elif name == "join" and values:
        big = _joined_size(text, values[0]) > MAX_CHARACTERS
    else:
        big = name in ("format", "format_map") and _WIDTH.search(text) is not None
    if big:
        raise TemplateTooBig


def measured(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the jinja filter `name` so that it cannot make a huge string."""

    @wraps(function)  # keeps jinja's marks: pass_environment, pass_eval_context
    def filtered(*args: Any, **kwargs: Any) -> Any:
        values = [arg for arg in args if isinstance(arg, (str, int, list, tuple, dict))]
        if name in _SIZED_FILTERS and any(_number(v) > 10_000 for v in [*values[1:], *kwargs.values()]):
            raise TemplateTooBig
        if name == "join" and values:
            separator = str(kwargs.get("d", values[1] if len(values) > 1 else ""))
            check_string("join", separator, (values[0],), {})
        elif name in ("replace", "format") and values and isinstance(values[0], str):
            check_string(name, values[0], tuple(values[1:]), kwargs)
        result = function(*[printable(arg) for arg in args], **kwargs)
        if isinstance(result, str) and len(result) > MAX_CHARACTERS:
            raise TemplateTooBig
        return result

    return filtered


def concat(*values: Any) -> str:
    """Join what `a ~ b` joins."""
    texts = [str(printable(value)) for value in values]
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise TemplateTooBig
    return "".join(texts)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers' `tojson` does: without jinja's HTML escapes."""
    if _number(indent) > 1000:
        raise TemplateTooBig
    text = json.dumps(
        printable(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if len(text) > MAX_CHARACTERS:
        raise TemplateTooBig
    return text


def printable(value: Any) -> Any:
    """Return `value` if its text is not huge: lists that hold one list twice, thirty deep, would be."""
    if isinstance(value, (list, tuple, dict)):
        size, waiting = 0, [value]
        while waiting:
            inner = waiting.pop()
            if isinstance(inner, dict):
                waiting += inner.values()
                size += sum(_size(key) + 4 for key in inner)
            elif isinstance(inner, (list, tuple)):
                waiting += inner
                size += 2 * len(inner)
            else:
                size += _size(inner)
            if size > MAX_CHARACTERS:
                raise TemplateTooBig
    return value


def _joined_size(separator: str, values: Any) -> int:
    if not isinstance(values, (list, tuple, dict)):
        return _size(values) * (len(separator) + 1)
    printable(values)
    return sum(_size(value) for value in values) + len(values) * len(separator)


def _number(value: Any) -> int:
    return int(abs(value)) if isinstance(value, (int, float)) and abs(value) < 1e300 else 0


def _digits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _size(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0
