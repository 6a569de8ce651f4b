from __future__ import annotations

from collections import Counter

from sensorium.registry.autoscale import DOWN_AFTER_S, SLOW_S, UP_AFTER_S, Autoscale, Load
from sensorium.registry.routing import SLACK, choose


def test_without_a_beginning_the_idlest_is_taken() -> None:
    assert choose("", {1: 3, 2: 1, 3: 2}) == 2


def test_requests_that_begin_alike_go_to_one_worker() -> None:
    assert len({choose("conversation", {1: a, 2: b, 3: 0}) for a in range(SLACK) for b in range(SLACK)}) == 1


def test_beginnings_are_spread_evenly() -> None:
    counts = Counter(choose(f"c{number}", {1: 0, 2: 0, 3: 0}) for number in range(3000))
    assert all(800 < count < 1200 for count in counts.values())


def test_a_busy_worker_passes_them_on() -> None:
    first = choose("conversation", {1: 0, 2: 0})
    assert choose("conversation", {first: SLACK + 1, 3 - first: 0}) == 3 - first


def test_a_worker_that_goes_moves_only_its_own() -> None:
    before = {key: choose(key, {1: 0, 2: 0, 3: 0}) for key in map(str, range(300))}
    after = {key: choose(key, {1: 0, 3: 0}) for key in before}
    assert all(after[key] == before[key] for key in before if before[key] != 2)


def scale(load: Load, seconds: float, autoscale: Autoscale, start: float = 0.0) -> int:
    wanted = load.replicas
    for step in range(int(seconds) + 1):
        wanted = autoscale.wanted(start + step, load)
        if wanted != load.replicas:
            break
    return wanted


def test_a_queue_that_lasts_calls_for_one_more() -> None:
    queue = Load(replicas=2, in_flight=4, queued=9, ttft_s=0.1)
    assert scale(queue, UP_AFTER_S, Autoscale()) == 3
    assert scale(queue, UP_AFTER_S - 1, Autoscale()) == 2


def test_slow_first_tokens_do_too_but_not_those_of_a_single_request() -> None:
    assert scale(Load(1, 3, 0, SLOW_S * 2), UP_AFTER_S, Autoscale()) == 2
    assert scale(Load(1, 1, 0, SLOW_S * 2), 10, Autoscale()) == 1


def test_slack_that_lasts_calls_for_one_less_but_never_for_none() -> None:
    assert scale(Load(3, 2, 0, 0.1), DOWN_AFTER_S, Autoscale()) == 2
    assert scale(Load(3, 2, 0, 0.1), DOWN_AFTER_S - 1, Autoscale()) == 3
    assert scale(Load(1, 0, 0, 0.0), 10 * DOWN_AFTER_S, Autoscale()) == 1


def test_a_burst_between_starts_the_wait_again() -> None:
    autoscale, slack = Autoscale(), Load(2, 0, 0, 0.1)
    assert scale(slack, DOWN_AFTER_S - 1, autoscale) == 2
    autoscale.wanted(DOWN_AFTER_S, Load(2, 9, 1, 0.1))
    assert scale(slack, DOWN_AFTER_S - 1, autoscale, start=DOWN_AFTER_S + 1) == 2
