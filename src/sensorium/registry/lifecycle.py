"""Which workers of one model start, serve, drain and stop. Pure: it says what is to be done, others do it.

loading -> ready -> draining -> stopping -> gone
   |        ^  |-> dozing -> asleep -> waking -> ready
   `--------|----------------------------> stopping
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from sensorium.registry.spec import FOREVER

ReplicaState = Literal["loading", "ready", "draining", "stopping", "dozing", "asleep", "waking"]

_SERVES_SOON = ("loading", "ready", "waking")


@dataclass
class Replica:
    """One worker of the model. Times are the caller's clock, in seconds."""

    id: int
    state: ReplicaState = "loading"
    in_flight: int = 0
    ready_at: float = 0.0
    used_at: float = 0.0


@dataclass(frozen=True)
class Start:
    """Start a worker; report `loaded` or `gone`."""

    id: int


@dataclass(frozen=True)
class Stop:
    """End a worker, or its loading; report `gone`."""

    id: int


@dataclass(frozen=True)
class Doze:
    """Let a worker give memory back and live; report `asleep`, `awake` if it cannot, or `gone`."""

    id: int


@dataclass(frozen=True)
class Wake:
    """Let it take the memory again; report `awake` or `gone`."""

    id: int


Action = Start | Stop | Doze | Wake


class Lifecycle:
    """The workers of one model.

    Args:
        min_replicas: so many run whether they are asked or not.
        max_replicas: never more than so many at once, those that drain left out.
        idle_ttl_s: a worker that was not used for so long is ended; FOREVER: never.
        pinned: not ended for being idle.
        sleeps: an idle worker sleeps for as long again before it is ended.
    """

    def __init__(
        self,
        *,
        min_replicas: int = 0,
        max_replicas: int = 1,
        idle_ttl_s: float = FOREVER,
        pinned: bool = False,
        sleeps: bool = False,
    ) -> None:
        self.min_replicas = min_replicas
        self.max_replicas = max(max_replicas, min_replicas, 1)
        self.idle_ttl_s = idle_ttl_s
        self.pinned = pinned
        self.sleeps = sleeps
        self.removed = False
        self.resting = False  # unloaded by hand: even workers that should always run wait for a request
        self.replicas: dict[int, Replica] = {}
        self._ids = itertools.count(1)

    def serving(self) -> list[Replica]:
        """Workers that take requests now."""
        return [replica for replica in self.replicas.values() if replica.state == "ready"]

    def num_active(self) -> int:
        """Workers that serve, or soon will."""
        return sum(replica.state in _SERVES_SOON for replica in self.replicas.values())

    def ask(self) -> list[Action]:
        """Somebody waits for the model."""
        self.resting = False
        if self.removed or self.num_active():
            return []
        asleep = next((replica for replica in self.replicas.values() if replica.state == "asleep"), None)
        return [self._wake(asleep)] if asleep else [self._start()]

    def take(self, replica_id: int) -> None:
        """A request goes to a worker that serves."""
        replica = self.replicas[replica_id]
        assert replica.state == "ready"
        replica.in_flight += 1

    def give(self, replica_id: int, now: float) -> list[Action]:
        """A request ended; its worker may be gone."""
        replica = self.replicas.get(replica_id)
        if replica is None:
            return []
        replica.in_flight -= 1
        replica.used_at = now
        return self._stop_drained(replica)

    def loaded(self, replica_id: int, now: float) -> None:
        """A worker is ready, unless it was told to stop meanwhile."""
        replica = self.replicas[replica_id]
        if replica.state == "loading":
            replica.state = "ready"
            replica.ready_at = replica.used_at = now

    def gone(self, replica_id: int) -> None:
        """A worker ended, whatever the reason, or never came to be."""
        self.replicas.pop(replica_id, None)

    def asleep(self, replica_id: int, now: float) -> None:
        """A worker gave its memory back."""
        replica = self.replicas[replica_id]
        if replica.state == "dozing":
            replica.state, replica.used_at = "asleep", now

    def awake(self, replica_id: int, now: float) -> None:
        """A worker took its memory again, or never gave it back."""
        replica = self.replicas[replica_id]
        if replica.state in ("dozing", "waking"):
            replica.state, replica.used_at = "ready", now

    def drain(self, replica_id: int) -> list[Action]:
        """A worker is to end: no more requests go to it, those it has may end."""
        replica = self.replicas.get(replica_id)
        if replica is None or replica.state in ("draining", "stopping"):
            return []
        if replica.state == "ready":
            replica.state = "draining"
            return self._stop_drained(replica)
        replica.state = "stopping"
        return [Stop(replica.id)]

    def drain_all(self) -> list[Action]:
        """Every worker is to end."""
        return [action for replica_id in list(self.replicas) for action in self.drain(replica_id)]

    def rest(self) -> list[Action]:
        """Every worker is to end, and none starts until somebody asks."""
        self.resting = True
        return self.drain_all()

    def hurry(self) -> list[Action]:
        """Workers that drain are to end now, whatever they are doing."""
        draining = [replica for replica in self.replicas.values() if replica.state == "draining"]
        for replica in draining:
            replica.state = "stopping"
        return [Stop(replica.id) for replica in draining]

    def remove(self) -> list[Action]:
        """The model is not there any more: nothing starts again."""
        self.removed = True
        self.min_replicas = 0
        return self.drain_all()

    def tick(self, now: float, wanted: int = 0, may_start: bool = True) -> list[Action]:
        """Time has passed. `wanted`: how many workers the load calls for; `may_start`: none failed just now."""
        if self.removed or self.resting:
            return []
        wanted = min(max(wanted, self.min_replicas), self.max_replicas)
        actions: list[Action] = []
        if may_start:
            for _ in range(wanted - self.num_active()):
                actions.append(self._start())
        spare = self.num_active() - self.min_replicas
        for replica in sorted(self.replicas.values(), key=lambda replica: replica.used_at):
            if spare <= 0 and replica.state != "asleep":
                continue
            if self._idle(replica, now):
                actions += self._put_away(replica)
                spare -= 1
        return actions

    def scale_down(self, wanted: int) -> list[Action]:
        """The load calls for fewer workers: those with the least to do drain."""
        serving = sorted(self.serving(), key=lambda replica: (replica.in_flight, replica.used_at))
        spare = max(0, len(serving) - max(wanted, self.min_replicas, 1))
        return [action for replica in serving[:spare] for action in self.drain(replica.id)]

    def _idle(self, replica: Replica, now: float) -> bool:
        if self.pinned or self.idle_ttl_s < 0 or replica.in_flight or replica.state not in ("ready", "asleep"):
            return False
        return now - replica.used_at >= self.idle_ttl_s

    def _put_away(self, replica: Replica) -> list[Action]:
        if self.sleeps and replica.state == "ready":
            replica.state = "dozing"
            return [Doze(replica.id)]
        return self.drain(replica.id)

    def _stop_drained(self, replica: Replica) -> list[Action]:
        if replica.state != "draining" or replica.in_flight:
            return []
        replica.state = "stopping"
        return [Stop(replica.id)]

    def _start(self) -> Action:
        replica = Replica(next(self._ids))
        self.replicas[replica.id] = replica
        return Start(replica.id)

    def _wake(self, replica: Replica) -> Action:
        replica.state = "waking"
        return Wake(replica.id)
