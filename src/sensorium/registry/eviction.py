"""Which loaded workers make room for another. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

# A busy worker is not drained for another model sooner than this after it was loaded: with more models asked for than
# fit, each serves for a while, and memory is not only moved about.
STAY_S = 10.0


@dataclass(frozen=True)
class Occupant:
    """A worker that holds memory.

    Attributes:
        key: whatever the caller knows it by.
        holds: pool of memory -> bytes.
        in_flight: requests it works on.
        used_s, ready_s: seconds since it was last used, and since it was loaded.
        pinned: stays whatever happens.
        leaving: it drains or stops already; what it holds is free soon.
    """

    key: object
    holds: Mapping[str, int]
    in_flight: int = 0
    used_s: float = 0.0
    ready_s: float = 0.0
    pinned: bool = False
    leaving: bool = False


@dataclass(frozen=True)
class Plan:
    """What to do about a need.

    Attributes:
        answer: `fits`: now. `evict`: when the victims are gone. `wait`: when others leave or may be made to.
            `cannot`: not even if all went that may.
        victims: keys, in the order in which they should go.
        short: by pool, the bytes that are missing even then; of `cannot` only.
    """

    answer: Literal["fits", "evict", "wait", "cannot"]
    victims: tuple[object, ...] = ()
    short: Mapping[str, int] | None = None


def plan(
    needed: Mapping[str, int],
    free: Mapping[str, int],
    occupants: Sequence[Occupant],
    promised: Mapping[str, int] | None = None,
) -> Plan:
    """Return what to do so that `needed` bytes are free, beside those `promised` to others who came before.

    Idle workers go first, the longest unused before others; then busy ones that had their time, which end what they
    do first. A victim that the others make superfluous stays.
    """
    movable = [each for each in occupants if not each.pinned or each.leaving]
    short = _less(_less(needed, free), _sum(movable))
    if short:
        return Plan("cannot", short=short)
    needed = {pool: needed.get(pool, 0) + (promised or {}).get(pool, 0) for pool in free}
    missing = _less(needed, free)
    if not missing:
        return Plan("fits")
    if _less(missing, _sum(movable)):
        return Plan("wait")
    missing = _less(missing, _sum([each for each in movable if each.leaving]))
    if not missing:
        return Plan("wait")
    idle = sorted((each for each in movable if _idle(each)), key=lambda each: -each.used_s)
    busy = sorted((each for each in movable if _had_its_time(each)), key=lambda each: -each.ready_s)
    chosen: list[Occupant] = []
    for each in (*idle, *busy):
        if not missing:
            break
        if any(each.holds.get(pool) for pool in missing):
            chosen.append(each)
            missing = _less(missing, each.holds)
    if missing and not chosen:
        return Plan("wait")
    return Plan("evict", tuple(each.key for each in _needed(chosen, needed, free, movable)))


def _needed(
    chosen: list[Occupant], needed: Mapping[str, int], free: Mapping[str, int], movable: Sequence[Occupant]
) -> list[Occupant]:
    """Leave out those, busy ones first, without whom the rest makes as much room as is needed."""
    leaving = [each for each in movable if each.leaving]
    kept = list(chosen)
    for each in reversed(chosen):
        rest = [other for other in kept if other is not each]
        if not _less(_less(needed, free), _sum([*rest, *leaving])):
            kept = rest
    return kept


def _idle(each: Occupant) -> bool:
    return not each.leaving and not each.in_flight


def _had_its_time(each: Occupant) -> bool:
    return not each.leaving and each.in_flight > 0 and each.ready_s >= STAY_S


def _less(needed: Mapping[str, int], there: Mapping[str, int]) -> dict[str, int]:
    left = {pool: count - there.get(pool, 0) for pool, count in needed.items()}
    return {pool: count for pool, count in left.items() if count > 0}


def _sum(occupants: Sequence[Occupant]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in occupants:
        for pool, count in each.holds.items():
            total[pool] = total.get(pool, 0) + count
    return total
