"""How many workers of a model the load calls for. Pure: the caller brings the clock."""

from __future__ import annotations

from dataclasses import dataclass

UP_AFTER_S = 3.0  # a burst shorter than a start gains nothing from one
DOWN_AFTER_S = 60.0
SLOW_S = 2.0  # to the first token
QUEUED = 4  # requests that wait, for each worker
BUSY = 8  # requests in flight that one worker is trusted to take over from one that ends


@dataclass(frozen=True)
class Load:
    """What one model has to do now.

    Attributes:
        replicas: workers that serve or are being loaded.
        in_flight: requests at workers.
        queued: requests that nobody works on yet: no worker is ready, or its batch is full.
        ttft_s: recent time to the first token.
    """

    replicas: int
    in_flight: int
    queued: int
    ttft_s: float


class Autoscale:
    """One more worker after some seconds of queueing or of slow first tokens; one less after a minute of slack."""

    def __init__(self) -> None:
        self._pressed_since: float | None = None
        self._slack_since: float | None = None

    def wanted(self, now: float, load: Load) -> int:
        """Return how many workers there should be; call it about once a second."""
        slow = load.ttft_s > SLOW_S and load.in_flight > load.replicas
        pressed = load.replicas > 0 and (load.queued >= QUEUED * load.replicas or slow)
        slack = load.replicas > 1 and not load.queued and load.in_flight <= BUSY * (load.replicas - 1) // 2 and not slow
        self._pressed_since = _since(self._pressed_since, now, pressed)
        self._slack_since = _since(self._slack_since, now, slack)
        if self._pressed_since is not None and now - self._pressed_since >= UP_AFTER_S:
            self._pressed_since = None
            return load.replicas + 1
        if self._slack_since is not None and now - self._slack_since >= DOWN_AFTER_S:
            self._slack_since = None
            return load.replicas - 1
        return load.replicas


def _since(since: float | None, now: float, holds: bool) -> float | None:
    if not holds:
        return None
    return now if since is None else since
