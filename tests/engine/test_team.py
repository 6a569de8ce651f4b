"""The number of threads, chosen by measuring: on a clock that the test moves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from sensorium.engine.team import Team, team_sizes

ALONE = {1: 0.088, 2: 0.066}  # seconds of a decode step, 0.5 B parameters, two cores
BESIDE_A_NEIGHBOUR = {1: 0.100, 2: 0.183}
HARDLY_ANY_WORK = {1: 0.0032, 2: 0.0060}  # a tiny model whose threads sleep while they wait
HOPELESS = {1: 0.107, 2: 1.035}  # threads that wait awake, beside a neighbour


class Cores:
    """A machine on which a step takes what `costs` says, give or take a few per cent."""

    def __init__(self, most: int, costs: Callable[[int], float]) -> None:
        self.now, self.costs, self.rng = 100.0, costs, random.Random(1)
        self.pushed_out = 0
        self.team = Team(most, self.use, lambda: self.now, lambda: self.pushed_out)
        self.threads = most

    def use(self, threads: int) -> None:
        self.threads = threads

    def steps(self, count: int, kind: str = "tokens", size: int = 1) -> list[int]:
        """Run steps and return the number of threads of each."""
        used = []
        for _ in range(count):
            with self.team.at_work(kind, size):
                self.now += self.costs(self.threads) * size * self.rng.uniform(0.95, 1.1)
            used.append(self.threads)
        return used


@pytest.mark.parametrize(("costs", "best"), [(ALONE, 2), (BESIDE_A_NEIGHBOUR, 1), (HARDLY_ANY_WORK, 1), (HOPELESS, 1)])
def test_the_faster_number_is_found_and_trying_costs_little(costs: dict[int, float], best: int) -> None:
    cores = Cores(2, costs.__getitem__)
    cores.steps(12)
    started = cores.now
    used = cores.steps(2000)
    assert Counter(used)[best] > 0.95 * len(used)
    assert cores.now - started < 1.08 * 2000 * costs[best]


def test_a_neighbour_that_comes_is_noticed_within_some_steps_and_one_that_leaves_within_seconds() -> None:
    cores = Cores(2, ALONE.__getitem__)
    cores.steps(500)
    cores.costs = BESIDE_A_NEIGHBOUR.__getitem__
    assert cores.steps(20)[-5:] == [1] * 5
    cores.steps(500)
    cores.costs = ALONE.__getitem__
    started = cores.now
    while cores.steps(5) != [2] * 5:
        assert cores.now < started + 30


def test_a_neighbour_that_comes_between_two_answers_is_noticed_too() -> None:
    cores = Cores(2, ALONE.__getitem__)
    cores.steps(500)
    cores.now += 60
    cores.costs = BESIDE_A_NEIGHBOUR.__getitem__
    assert cores.steps(20)[-5:] == [1] * 5


def test_on_many_cores_one_is_left_to_the_neighbour() -> None:
    work = 0.1
    cores = Cores(16, lambda threads: work / threads if threads < 16 else work / 4)
    cores.steps(100)
    assert Counter(cores.steps(1000)).most_common(1)[0][0] == 15


def test_on_many_cores_a_small_model_ends_on_few() -> None:
    cores = Cores(16, lambda threads: 0.002 / threads + 0.0005 * threads)
    cores.steps(200)
    assert Counter(cores.steps(1000)).most_common(1)[0][0] == 2


def test_steps_of_other_sizes_and_kinds_learn_for_themselves() -> None:
    cores = Cores(2, HARDLY_ANY_WORK.__getitem__)
    assert cores.steps(50)[-5:] == [1] * 5
    cores.costs = ALONE.__getitem__
    cores.steps(100, size=8)
    assert Counter(cores.steps(200, size=8))[2] > 190
    cores.costs = HARDLY_ANY_WORK.__getitem__
    assert Counter(cores.steps(200))[1] > 180
    assert Counter(cores.steps(100, kind="encoder", size=100))[1] > 80


def test_long_steps_are_not_tried_on_fewer_threads_before_short_ones_were_faster_so() -> None:
    cores = Cores(2, lambda threads: 0.001 / threads)
    cores.steps(50)
    assert set(cores.steps(100, size=250)) == {2}
    cores.costs = lambda threads: 0.001 * threads
    cores.steps(20)
    assert cores.steps(20, size=250)[-5:] == [1] * 5


def test_the_first_long_steps_beside_a_neighbour_are_tried_on_fewer_threads() -> None:
    cores = Cores(2, lambda threads: 0.001 * threads)
    cores.steps(50)
    assert cores.steps(20, kind="encoder", size=250)[-5:] == [1] * 5


def test_long_steps_that_lose_their_cores_are_tried_on_fewer_threads() -> None:
    cores = Cores(2, HOPELESS.__getitem__)

    def contended(threads: int) -> float:
        cores.pushed_out += 300 * (threads - 1)
        return HOPELESS[threads] / 250

    cores.steps(3, kind="encoder", size=250)
    cores.costs = contended
    assert Counter(cores.steps(12, size=250))[1] >= 7
    assert cores.steps(4, kind="encoder", size=250) == [1] * 4


def test_long_steps_on_cores_of_their_own_are_left_alone() -> None:
    cores = Cores(2, lambda threads: ALONE[threads] / 250)
    assert set(cores.steps(2000, size=250)) == {2}


def test_long_steps_are_tried_on_more_threads_when_short_ones_were_faster_so() -> None:
    cores = Cores(2, lambda threads: 0.001 * threads)
    cores.steps(50)
    assert cores.steps(50, size=250)[-5:] == [1] * 5
    cores.costs = lambda threads: 0.001 / threads
    cores.steps(20_000)
    assert cores.steps(20, size=250)[-5:] == [2] * 5


def test_a_step_that_fails_teaches_nothing() -> None:
    cores = Cores(2, BESIDE_A_NEIGHBOUR.__getitem__)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), cores.team.at_work("tokens", 1):
            raise ZeroDivisionError
    cores.steps(20)
    assert cores.steps(5) == [1] * 5


def test_one_thread_is_one_thread() -> None:
    cores = Cores(1, {1: 0.1}.__getitem__)
    assert cores.steps(20) == [1] * 20


def test_sizes() -> None:
    assert [team_sizes(most) for most in (1, 2, 3, 4, 8, 12)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 3, 4],
        [1, 2, 4, 7, 8],
        [1, 2, 4, 8, 11, 12],
    ]
