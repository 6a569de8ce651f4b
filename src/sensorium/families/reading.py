"""Values of a checkpoint's files that are not what they should be become errors that say so, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sensorium.errors import ConfigurationError, SensoriumError

P = ParamSpec("P")
T = TypeVar("T")


def typed(read: Callable[P, T], files: str) -> Callable[P, T]:
    """Return `read`, a family's function of a checkpoint's `files`, that raises one error for all values it trips over.

    The values that checkpoints really differ in are checked by name where they are read; this is for all the others.
    """

    @wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except SensoriumError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{files} of the checkpoint cannot be read: a value is missing or of the wrong kind "
                f"({type(error).__name__}: {error}). Compare with the published files."
            ) from error

    return reading


def number(part: Mapping[str, Any], key: str, default: float, where: str = "config.json") -> float:
    """Return the number above 0 that `part` of a file has under `key`; `default` where it has none, or null.

    Raises:
        ConfigurationError: there is something else.
    """
    value = default if part.get(key) is None else part[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{where} has {key} {value!r}; it must be a number above 0.")
    return float(value)
