"""Find stop strings in streamed text without ever showing a piece of one."""

from __future__ import annotations

import re
from collections.abc import Sequence


class StopMatcher:
    """Holds back only the longest end of the text that could still become a stop string.

    The stop string that is complete first wins (of two that end together, the longer), so the outcome does not
    depend on how the text is cut into pieces.

    Args:
        stop: stop strings, none of them empty.
        include: show the stop string that was hit.
    """

    def __init__(self, stop: Sequence[str], include: bool) -> None:
        self._stops = tuple(stop)
        self._include = include
        self._held = ""
        self._longest = max(map(len, self._stops), default=0)
        self._first = re.compile("[" + re.escape("".join({text[0] for text in self._stops})) + "]") if stop else None

    def push(self, text: str) -> tuple[str, str | None]:
        """Return the text that can be shown now, and the stop string that was hit, if one was."""
        if self._first is None:
            return text, None
        text = self._held + text
        hit = self._hit(text)
        if hit is not None:
            self._held = ""
            start, end = hit
            return text[: end if self._include else start], text[start:end]
        keep = self._end_to_hold(text)
        self._held = text[keep:]
        return text[:keep], None

    def flush(self) -> str:
        """Return what is still held: the sequence has ended, so it is no stop string."""
        held, self._held = self._held, ""
        return held

    def _hit(self, text: str) -> tuple[int, int] | None:
        best: tuple[int, int] | None = None
        for stop in self._stops:
            start = text.find(stop)
            if start >= 0 and (best is None or (start + len(stop), start) < (best[1], best[0])):
                best = (start, start + len(stop))
        return best

    def _end_to_hold(self, text: str) -> int:
        """Return where the longest suffix begins that begins a stop string."""
        assert self._first is not None
        at = max(0, len(text) - self._longest + 1)
        while (match := self._first.search(text, at)) is not None:
            at = match.start()
            suffix = text[at:]
            if any(stop.startswith(suffix) for stop in self._stops):
                return at
            at += 1
        return len(text)
