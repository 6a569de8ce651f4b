"""Which of several workers a request goes to: one that has its beginning in its caches, if that one has time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

# A worker may have this many requests more than the idlest before those that belong to it go elsewhere: less, and
# caches are computed twice; more, and requests queue behind each other while another worker has nothing to do.
SLACK = 4


def choose(near: str, in_flight: Mapping[int, int], slack: int = SLACK) -> int:
    """Return the worker for a request.

    Workers are ranked for each `near` by rendezvous hashing (Thaler and Ravishankar, 1998), so that those that come
    and go move only the requests that were theirs; the first that is not much busier than the idlest is taken.

    Args:
        near: the same for requests that begin alike; "": none does.
        in_flight: worker -> requests it has; not empty.
    """
    idlest = min(in_flight.values())
    if not near:
        return min(in_flight, key=lambda worker: (in_flight[worker], worker))
    free = [worker for worker, count in in_flight.items() if count <= idlest + slack]
    return max(free, key=lambda worker: _rank(near, worker))


def _rank(near: str, worker: int) -> bytes:
    return hashlib.blake2b(f"{worker}/{near}".encode(), digest_size=8).digest()
