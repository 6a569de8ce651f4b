"""The memory that models share: who holds how much, and who has to go so that another can be loaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sensorium.errors import NoRoom
from sensorium.registry.eviction import Occupant, Plan, plan
from sensorium.registry.memory import HOST, host_free
from sensorium.settings import GIB

_LOOK_S = 0.5  # how often one who waits looks again: what is busy may have become evictable without an event
_RETRY_S = 5


@dataclass(eq=False)
class Claim:
    """Memory that is set aside for one worker.

    Attributes:
        owner: the model's name, for messages.
        holds: pool -> bytes.
        standing: what the worker does now; only the fields of Occupant beside `key` and `holds` count.
        leave: lets the worker drain.
    """

    owner: str
    holds: dict[str, int]
    standing: Callable[[], Occupant]
    leave: Callable[[], None]
    granted: bool = False


class Room:
    """Belongs to one event loop.

    Args:
        budgets: pool -> bytes that models may take together: "host", "cuda:0", ...
        wait_s: how long a load waits for others to leave.
        really_free: what the host could give now, whatever was counted.
    """

    def __init__(
        self,
        budgets: Mapping[str, int],
        *,
        wait_s: float = 120.0,
        really_free: Callable[[], int] = host_free,
    ) -> None:
        self.budgets = dict(budgets)
        self._wait_s = wait_s
        self._really_free = really_free
        self._claims: list[Claim] = []  # in the order in which they came
        self._changed = asyncio.Event()

    def used(self) -> dict[str, int]:
        """Return pool -> bytes that are set aside."""
        return {pool: sum(claim.holds.get(pool, 0) for claim in self._claims if claim.granted) for pool in self.budgets}

    def device(self) -> str | None:
        """Return the accelerator with the most room; None: there is none."""
        used = self.used()
        devices = [pool for pool in self.budgets if pool != HOST]
        return max(devices, key=lambda pool: self.budgets[pool] - used[pool]) if devices else None

    async def take(
        self,
        owner: str,
        least: Mapping[str, int],
        most: Mapping[str, int],
        standing: Callable[[], Occupant],
        leave: Callable[[], None],
        *,
        forced: bool = False,
    ) -> Claim:
        """Set memory aside: `least` at any rate, up to `most` where it is free anyway. Makes others leave if need be.

        `forced` never refuses: the operator named the model, and loading says itself what is too much.

        Raises:
            NoRoom: it does not fit even if all leave that may, or nobody left in time.
        """
        claim = Claim(owner, dict(least), standing, leave)
        self._claims.append(claim)
        deadline = time.monotonic() + self._wait_s
        try:
            while not forced:
                found = self._plan(claim.holds, self._before(claim))
                if found.answer == "fits":
                    break
                if found.answer == "cannot":
                    raise self._refusal(claim, found)
                for victim in found.victims:
                    assert isinstance(victim, Claim)
                    victim.leave()
                if time.monotonic() > deadline:
                    raise NoRoom(
                        f"There is no memory for the model {owner!r}: others that are in use hold it, and none of them "
                        f"ended within {self._wait_s:.0f} s.",
                        retry_after_s=_RETRY_S,
                    )
                await self._change()
        except BaseException:
            self.release(claim)
            raise
        claim.granted = True
        self._stretch(claim, most)
        return claim

    def stand(self, owner: str, standing: Callable[[], Occupant], leave: Callable[[], None]) -> Claim:
        """Note a worker that takes no memory of this machine, but may be asked to leave another (`make_one_leave`)."""
        claim = Claim(owner, {}, standing, leave, granted=True)
        self._claims.append(claim)
        return claim

    async def make_one_leave(self) -> bool:
        """Let the longest unused of the idle workers on other machines go, and wait a moment; False: none may go."""
        found = [(claim, _occupant(claim)) for claim in self._claims if not claim.holds and claim.granted]
        if not any(occupant.leaving for _, occupant in found):
            idle = [pair for pair in found if not pair[1].in_flight and not pair[1].pinned]
            if not idle:
                return False
            max(idle, key=lambda pair: pair[1].used_s)[0].leave()
        await self._change()
        return True

    def correct(self, claim: Claim, holds: Mapping[str, int]) -> None:
        """Set aside what a worker was measured to take instead of what was expected."""
        if claim.holds != holds:
            claim.holds = dict(holds)
            self._changed.set()

    def release(self, claim: Claim) -> None:
        """Give back what was set aside."""
        if claim in self._claims:
            self._claims.remove(claim)
            self._changed.set()

    def plan(self, owner: str, needed: Mapping[str, int]) -> Plan:
        """Return what would be done about a need, without doing it. Nothing is asked of memory that `owner` has."""
        others = [claim for claim in self._claims if claim.owner != owner]
        return self._plan(needed, others)

    def owners(self, claims: Sequence[object]) -> tuple[str, ...]:
        """Return whose workers a plan's victims are."""
        return tuple(dict.fromkeys(claim.owner for claim in claims if isinstance(claim, Claim)))

    def changed(self) -> None:
        """A worker became idle, or began to drain."""
        self._changed.set()

    def _plan(self, needed: Mapping[str, int], others: Sequence[Claim]) -> Plan:
        used = {pool: sum(other.holds.get(pool, 0) for other in others if other.granted) for pool in self.budgets}
        free = {pool: budget - used[pool] for pool, budget in self.budgets.items()}
        free[HOST] = min(free.get(HOST, 0), self._really_free())
        promised = {pool: sum(other.holds.get(pool, 0) for other in others if not other.granted) for pool in free}
        return plan(needed, free, [_occupant(other) for other in others if other.granted], promised)

    def _stretch(self, claim: Claim, most: Mapping[str, int]) -> None:
        """Give half of what is free beyond the least: the next model finds something free too."""
        used = self.used()
        for pool, wanted in most.items():
            free = self.budgets.get(pool, 0) - used.get(pool, 0)
            if pool == HOST:
                free = min(free, self._really_free() - claim.holds[pool])
            extra = min(wanted - claim.holds[pool], free // 2)
            claim.holds[pool] += max(0, extra)

    def _before(self, claim: Claim) -> list[Claim]:
        """Those that hold memory, and those that came before and wait for it: they get theirs first."""
        number = self._claims.index(claim)
        return [other for index, other in enumerate(self._claims) if other.granted or index < number]

    async def _change(self) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _refusal(self, claim: Claim, found: Plan) -> NoRoom:
        pool = next(iter(found.short or {}))
        needed, budget = claim.holds[pool] / GIB, self.budgets.get(pool, 0) / GIB
        pinned = sum(other.holds.get(pool, 0) for other in self._claims if other.granted and _occupant(other).pinned)
        flag = "--memory-budget" if pool == HOST else "--device-memory-budget"
        held = f", of which {pinned / GIB:.2f} GiB are held by models that stay" if pinned else ""
        return NoRoom(
            f"The model {claim.owner!r} needs {needed:.2f} GiB of {pool} memory; models may take {budget:.2f} GiB "
            f"together ({flag}){held}."
        )


def _occupant(claim: Claim) -> Occupant:
    return replace(claim.standing(), key=claim, holds=claim.holds)
