from __future__ import annotations

import random

from sensorium.registry.eviction import STAY_S, Occupant, plan


def idle(key: str, size: int, used_s: float, **more: bool) -> Occupant:
    return Occupant(key, {"host": size}, used_s=used_s, ready_s=used_s, **more)


def busy(key: str, size: int, ready_s: float) -> Occupant:
    return Occupant(key, {"host": size}, in_flight=1, ready_s=ready_s)


def test_what_fits_needs_nobody_to_go() -> None:
    assert plan({"host": 5}, {"host": 5}, [idle("a", 5, 100)]).answer == "fits"


def test_the_longest_unused_goes_first() -> None:
    found = plan({"host": 5}, {"host": 0}, [idle("new", 5, 1), idle("old", 5, 9), idle("middle", 5, 5)])
    assert (found.answer, found.victims) == ("evict", ("old",))


def test_no_more_go_than_have_to() -> None:
    found = plan({"host": 8}, {"host": 0}, [idle("small", 1, 9), idle("large", 8, 5)])
    assert found.victims == ("large",)


def test_pinned_ones_stay_and_what_then_is_missing_is_told() -> None:
    found = plan({"host": 8}, {"host": 1}, [idle("pinned", 9, 9, pinned=True), idle("other", 2, 1)])
    assert (found.answer, found.short) == ("cannot", {"host": 5})


def test_busy_ones_go_only_after_their_time_and_after_all_idle_ones() -> None:
    young, old = busy("young", 5, STAY_S / 2), busy("old", 5, 2 * STAY_S)
    assert plan({"host": 5}, {"host": 0}, [young]).answer == "wait"
    assert plan({"host": 5}, {"host": 0}, [young, old]).victims == ("old",)
    assert plan({"host": 5}, {"host": 0}, [young, old, idle("idle", 5, 0)]).victims == ("idle",)
    assert plan({"host": 9}, {"host": 0}, [young, old, idle("idle", 5, 0)]).victims == ("idle", "old")


def test_who_leaves_already_is_waited_for() -> None:
    assert plan({"host": 5}, {"host": 0}, [idle("going", 5, 0, leaving=True), idle("other", 5, 9)]).answer == "wait"


def test_those_who_came_before_get_theirs_first() -> None:
    assert plan({"host": 2}, {"host": 5}, [], {"host": 4}).answer == "wait"
    assert plan({"host": 2}, {"host": 6}, [], {"host": 4}).answer == "fits"
    assert plan({"host": 2}, {"host": 1}, [idle("a", 5, 1)], {"host": 4}).victims == ("a",)
    assert plan({"host": 7}, {"host": 1}, [idle("a", 5, 1)], {"host": 1}).answer == "cannot"


def test_each_memory_counts_by_itself() -> None:
    on_device = Occupant("device", {"host": 1, "cuda:0": 9}, used_s=1)
    on_host = Occupant("host", {"host": 9}, used_s=9)
    found = plan({"cuda:0": 5, "host": 1}, {"cuda:0": 0, "host": 3}, [on_host, on_device])
    assert found.victims == ("device",)


def test_random_plans_hold_what_they_promise() -> None:
    chance = random.Random(0)
    for _ in range(3000):
        pools = ["host", "cuda:0"]
        there = [
            Occupant(
                number,
                {pool: chance.randrange(6) for pool in pools},
                in_flight=chance.randrange(2),
                used_s=chance.random() * 20,
                ready_s=chance.random() * 20,
                pinned=chance.random() < 0.2,
                leaving=chance.random() < 0.2,
            )
            for number in range(chance.randrange(6))
        ]
        needed = {pool: chance.randrange(12) for pool in pools}
        free = {pool: chance.randrange(6) for pool in pools}
        found = plan(needed, free, there)
        gone = [each for each in there if each.key in found.victims or each.leaving]
        room = {pool: free[pool] + sum(each.holds[pool] for each in gone) for pool in pools}
        everything = [each for each in there if not each.pinned or each.leaving]
        most = {pool: free[pool] + sum(each.holds[pool] for each in everything) for pool in pools}
        assert (found.answer == "fits") == all(free[pool] >= needed[pool] for pool in pools)
        assert (found.answer == "cannot") == any(most[pool] < needed[pool] for pool in pools)
        assert not any(each.pinned or each.leaving for each in there if each.key in found.victims)
        assert len(set(found.victims)) == len(found.victims)
        if found.answer == "evict":
            waiting_for = [each for each in there if each.in_flight and not each.leaving and each.ready_s < STAY_S]
            enough = all(room[pool] >= needed[pool] for pool in pools)
            assert enough or any(not each.pinned for each in waiting_for)
