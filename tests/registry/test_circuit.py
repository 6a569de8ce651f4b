from __future__ import annotations

from sensorium.registry.circuit import FIRST_PAUSE_S, MAX_PAUSE_S, NO_ROOM_RETRY_S, WINDOW_S, Circuit


def test_it_opens_after_three_failures_within_a_minute() -> None:
    circuit = Circuit()
    for now in (0.0, 10.0):
        circuit.failed(now, "first")
        assert circuit.wait_s(now) == 0
    circuit.failed(20.0, "last")
    assert circuit.wait_s(20.0) == FIRST_PAUSE_S
    assert circuit.wait_s(25.0) == FIRST_PAUSE_S - 5
    assert circuit.wait_s(20.0 + FIRST_PAUSE_S) == 0
    assert circuit.reason == "last"


def test_rare_failures_do_not_open_it() -> None:
    circuit = Circuit()
    for number in range(10):
        circuit.failed(number * WINDOW_S, "rare")
        assert circuit.wait_s(number * WINDOW_S) == 0


def test_pauses_grow_to_a_limit_until_something_works() -> None:
    circuit = Circuit()
    pauses = []
    now = 0.0
    for _ in range(8):
        for _ in range(3):
            circuit.failed(now, "again")
        pauses.append(circuit.wait_s(now))
        now += pauses[-1]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == MAX_PAUSE_S
    circuit.worked()
    for _ in range(3):
        circuit.failed(now, "again")
    assert circuit.wait_s(now) == FIRST_PAUSE_S


def test_no_room_is_no_failure_but_nothing_starts_by_itself_at_once() -> None:
    circuit = Circuit()
    for now in (0.0, 1.0, 2.0, 3.0):
        circuit.no_room(now, "full")
        assert (circuit.wait_s(now), circuit.retry_at) == (0, now + NO_ROOM_RETRY_S)
    assert circuit.reason == "full"
