"""Sampling parameters that are lists and dicts, as programs write them."""

from __future__ import annotations

import math
from typing import Any

from sensorium.errors import InvalidRequest


def entries_of(name: str, given: Any, kind: Any) -> tuple[Any, ...]:
    """Return a list's entries, all of type `kind`; one string is a list of one.

    Raises:
        InvalidRequest: it is no list, or an entry has another type; `param` is `name`.
    """
    try:
        found = (given,) if isinstance(given, str | bytes) else tuple(() if given is None else given)
    except TypeError:
        raise InvalidRequest(f"{name} is {type(given).__name__}; it must be a list.", param=name) from None
    wrong = next((entry for entry in found if not isinstance(entry, kind)), None)
    if wrong is not None:
        what = "strings" if kind is str else "whole numbers"
        raise InvalidRequest(f"{name} has an entry that is {type(wrong).__name__}; it takes {what}.", param=name)
    return found


def biases_of(given: Any) -> dict[int, float] | None:
    """Return token id -> bias; ids may be written as strings, as JSON has them.

    Raises:
        InvalidRequest: it is no such dict.
    """
    if given is None:
        return None
    try:
        biases = {int(token_id): float(bias) for token_id, bias in given.items() if not isinstance(bias, str)}
        whole = len(biases) == len(given)
    except (AttributeError, TypeError, ValueError):
        biases, whole = {}, False
    # `not (a < b)` also catches NaN.
    if not whole or not all(bias < math.inf for bias in biases.values()):
        raise InvalidRequest("logit_bias must be a dict: token id -> finite number.", param="logit_bias")
    return biases
