"""When to stop starting workers that die at once. Pure: the caller brings the clock."""

from __future__ import annotations

from collections import deque

MAX_FAILURES = 3
WINDOW_S = 60.0
FIRST_PAUSE_S = 10.0
MAX_PAUSE_S = 300.0
RETRY_S = 1.0
NO_ROOM_RETRY_S = 5.0


class Circuit:
    """Counts failures of one model; after three within a minute it asks for a pause, each twice as long as the last.

    Attributes:
        reason: of the last failure.
        retry_at: not earlier is another worker started that nobody asked for.
    """

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)
        self._until = self.retry_at = 0.0
        self._pause_s = FIRST_PAUSE_S
        self.reason = ""

    def failed(self, now: float, reason: str) -> None:
        """Record that a worker failed to load, or died before it was of any use."""
        self.reason = reason
        self.retry_at = now + RETRY_S
        self._failures.append(now)
        if len(self._failures) == MAX_FAILURES and now - self._failures[0] <= WINDOW_S:
            self._until = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
            self._failures.clear()

    def no_room(self, now: float, reason: str) -> None:
        """Record that there was no memory. No worker was started, so none failed: who asks again may find some."""
        self.reason = reason
        self.retry_at = now + NO_ROOM_RETRY_S

    def worked(self) -> None:
        """Record that a worker did what it is for."""
        self._failures.clear()
        self._pause_s = FIRST_PAUSE_S

    def wait_s(self, now: float) -> float:
        """Return how long no worker should be started; 0: go on."""
        return max(0.0, self._until - now)
