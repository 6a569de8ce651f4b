"""The face that both endpoints' answers show to the server."""

from __future__ import annotations

from typing import Protocol

from sensorium.protocol.tally import Tally
from sensorium.types import Event


class Answer(Protocol):
    """Turns the events of one request into chunks, or folds them into one body. Holds the answer's state."""

    id: str
    model: str
    tally: Tally

    def chunk(self, event: Event) -> bytes:
        """Return the server-sent events for `event`; may be empty."""
        ...

    def end(self) -> bytes:
        """Return what follows the last event: the usage chunk where asked for, and [DONE].

        Raises:
            WorkerDied: a choice has no finish reason yet.
        """
        ...

    def add(self, event: Event) -> None:
        """Fold `event` in."""
        ...

    def body(self) -> object:
        """Return the folded answer, to be encoded as JSON.

        Raises:
            WorkerDied: a choice has no finish reason yet.
        """
        ...
