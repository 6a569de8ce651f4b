"""How long a client wants to wait for a model that is not loaded yet: `?wait=SECONDS`, or `Prefer: wait=SECONDS`.

Nothing said: as long as it takes. 0 (or `Prefer: respond-async`, RFC 7240): not at all; loading begins, and the answer
is 503 with `Retry-After` and how far it is.
"""

from __future__ import annotations

import math
import re
from typing import Any

from starlette.requests import Request

from sensorium.errors import InvalidRequest, ModelLoading, SensoriumError
from sensorium.registry.interface import Pool
from sensorium.registry.status import ModelStatus

RETRY_AFTER_S = 2
_NO, _YES = ("0", "false", "no"), ("", "true", "yes", "inf")
_PREFER = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([^\s,;\"]+)", re.IGNORECASE)


def wait_s(request: Request) -> float | None:
    """Return the seconds; None: as long as it takes.

    Raises:
        InvalidRequest: what was said is no time.
    """
    given = request.query_params.get("wait")
    where = "`wait` of the address"
    if given is None:
        prefer = request.headers.get("prefer", "")
        found = _PREFER.search(prefer)
        if found is None:
            return 0.0 if "respond-async" in prefer.lower() else None
        given, where = found[1], "`wait` of the header Prefer"
    given = given.strip().lower()
    if given in _YES:
        return None
    if given in _NO:
        return 0.0
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InvalidRequest(f"{where} is {given[:40]!r}; give seconds, 0 for not at all.", param="wait")
    return seconds


def loading_details(error: SensoriumError, pool: Pool, name: str) -> dict[str, Any]:
    """Return what the body of a 503 says more of a model that is being loaded; {} for other errors."""
    if not isinstance(error, ModelLoading):
        return {}
    try:
        status = pool.status(name)
    except SensoriumError:
        status = ModelStatus(name, "loading")
    phase = status.phase or status.state
    retry = error.retry_after_s or RETRY_AFTER_S
    return {"status": "starting", "phase": phase, "fraction": status.fraction, "retry_after": retry}
