from __future__ import annotations

import random

import pytest

from sensorium.registry.lifecycle import Doze, Lifecycle, Start, Stop, Wake
from sensorium.registry.spec import FOREVER


def ready(life: Lifecycle, now: float = 0.0) -> int:
    (start,) = life.ask()
    assert isinstance(start, Start)
    life.loaded(start.id, now)
    return start.id


def test_many_ask_and_one_starts() -> None:
    life = Lifecycle()
    assert life.ask() == [Start(1)]
    assert life.ask() == []
    life.loaded(1, 0.0)
    assert life.ask() == []
    assert [replica.id for replica in life.serving()] == [1]


def test_after_its_end_another_starts() -> None:
    life = Lifecycle()
    ready(life)
    life.gone(1)
    assert life.ask() == [Start(2)]


def test_draining_waits_for_requests_and_new_ones_start_another() -> None:
    life = Lifecycle()
    number = ready(life)
    life.take(number)
    assert life.drain(number) == []
    assert life.drain(number) == []
    assert life.serving() == []
    assert life.ask() == [Start(2)]
    assert life.give(number, 1.0) == [Stop(number)]


def test_a_load_that_is_called_off_is_never_ready() -> None:
    life = Lifecycle()
    (start,) = life.ask()
    assert life.drain_all() == [Stop(start.id)]
    life.loaded(start.id, 0.0)
    assert life.serving() == []


def test_idle_and_only_idle_workers_go() -> None:
    life = Lifecycle(idle_ttl_s=10.0)
    number = ready(life, now=0.0)
    assert life.tick(9.0) == []
    life.take(number)
    assert life.tick(100.0) == []
    life.give(number, 100.0)
    assert life.tick(109.0) == []
    assert life.tick(110.0) == [Stop(number)]
    assert life.tick(111.0) == []


@pytest.mark.parametrize("kept", [{"pinned": True}, {"min_replicas": 1}, {"idle_ttl_s": FOREVER}])
def test_what_is_kept_stays(kept: dict[str, object]) -> None:
    life = Lifecycle(**{"idle_ttl_s": 1.0, **kept})  # type: ignore[arg-type]
    ready(life)
    assert life.tick(1e6) == []


def test_workers_that_must_run_are_started_again_when_that_is_allowed() -> None:
    life = Lifecycle(min_replicas=2, max_replicas=3)
    assert life.tick(0.0) == [Start(1), Start(2)]
    life.loaded(1, 0.0)
    life.gone(2)
    assert life.tick(1.0, may_start=False) == []
    assert life.tick(2.0) == [Start(3)]
    assert life.tick(2.0, wanted=9) == [Start(4)]


def test_what_is_unloaded_by_hand_stays_so_until_somebody_asks() -> None:
    life = Lifecycle(min_replicas=1)
    (start,) = life.tick(0.0)
    life.loaded(start.id, 0.0)
    assert life.rest() == [Stop(start.id)]
    life.gone(start.id)
    assert life.tick(1.0) == []
    assert life.ask() == [Start(2)]
    life.gone(2)
    assert life.tick(2.0) == [Start(3)]


def test_scaling_down_takes_the_one_with_the_least_to_do() -> None:
    life = Lifecycle(max_replicas=3)
    life.tick(0.0, wanted=3)
    for number in (1, 2, 3):
        life.loaded(number, 0.0)
    life.take(1)
    life.take(3)
    assert life.scale_down(2) == [Stop(2)]
    assert life.scale_down(0) == []
    assert sum(replica.state == "draining" for replica in life.replicas.values()) == 1


def test_it_sleeps_before_it_goes_and_wakes_when_asked() -> None:
    life = Lifecycle(idle_ttl_s=10.0, sleeps=True)
    number = ready(life)
    assert life.tick(10.0) == [Doze(number)]
    life.asleep(number, 10.0)
    assert life.tick(19.0) == []
    assert life.ask() == [Wake(number)]
    assert life.ask() == []
    life.awake(number, 20.0)
    assert [replica.id for replica in life.serving()] == [number]
    life.tick(30.0)
    life.asleep(number, 30.0)
    assert life.tick(40.0) == [Stop(number)]


def test_removed_nothing_starts_and_hurry_does_not_wait() -> None:
    life = Lifecycle(min_replicas=1)
    (start,) = life.tick(0.0)
    life.loaded(start.id, 0.0)
    life.take(start.id)
    assert life.remove() == []
    assert life.ask() == []
    assert life.tick(1.0, wanted=2) == []
    assert life.hurry() == [Stop(start.id)]
    assert life.give(start.id, 2.0) == []


class _World:
    """Workers as they behave: what is asked of them happens later, in any order, or they die first."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        options = self.random
        self.life = Lifecycle(
            min_replicas=options.choice([0, 0, 1]),
            max_replicas=options.choice([1, 1, 2, 3]),
            idle_ttl_s=options.choice([FOREVER, 0.0, 3.0]),
            pinned=options.random() < 0.2,
            sleeps=options.random() < 0.3,
        )
        self.now = 0.0
        self.loading: set[int] = set()
        self.alive: set[int] = set()
        self.stopping: set[int] = set()
        self.dozing: set[int] = set()
        self.waking: set[int] = set()
        self.requests: list[int] = []  # number of the worker each is at
        self.waiting = 0
        self.calls = {"load": 2, "remove": 1}

    def do(self, actions: list[object]) -> None:
        for action in actions:
            match action:
                case Start(number):
                    assert number not in self.loading | self.alive
                    assert not self.life.removed
                    self.loading.add(number)
                case Stop(number):
                    assert number in self.loading | self.alive, "only what runs is stopped"
                    assert number not in self.stopping, "and once"
                    self.stopping.add(number)
                case Doze(number):
                    assert number not in self.requests
                    self.dozing.add(number)
                case Wake(number):
                    self.waking.add(number)

    def step(self) -> None:
        self.now += self.random.random()
        steps = [self.ask, self.serve, self.end, self.load, self.stop, self.die, self.sleep, self.tick, self.unload]
        self.random.choice([*steps, self.remove] if self.calls["remove"] else steps)()
        self.check()

    def ask(self) -> None:
        if not self.life.removed:
            self.waiting += 1
            self.do(self.life.ask())

    def serve(self) -> None:
        serving = self.life.serving()
        if self.waiting and serving:
            self.waiting -= 1
            number = self.random.choice(serving).id
            self.life.take(number)
            self.requests.append(number)
        elif self.waiting:
            self.do(self.life.ask())

    def end(self) -> None:
        if self.requests:
            number = self.requests.pop(self.random.randrange(len(self.requests)))
            self.do(self.life.give(number, self.now))

    def load(self) -> None:
        if self.loading:
            number = self.random.choice(sorted(self.loading))
            self.loading.discard(number)
            if self.random.random() < 0.3 or number in self.stopping:
                self.stopping.discard(number)
                self.life.gone(number)
            else:
                self.alive.add(number)
                self.life.loaded(number, self.now)

    def stop(self) -> None:
        if self.stopping:
            number = self.random.choice(sorted(self.stopping))
            self.bury(number)

    def die(self) -> None:
        if self.alive and self.random.random() < 0.3:
            self.bury(self.random.choice(sorted(self.alive)))

    def bury(self, number: int) -> None:
        for group in (self.loading, self.alive, self.stopping, self.dozing, self.waking):
            group.discard(number)
        self.life.gone(number)
        for _ in range(self.requests.count(number)):  # they fail, and their leases end
            self.requests.remove(number)
            self.do(self.life.give(number, self.now))

    def sleep(self) -> None:
        for group, tell in ((self.dozing, self.life.asleep), (self.waking, self.life.awake)):
            if group:
                number = self.random.choice(sorted(group))
                group.discard(number)
                tell(number, self.now)

    def tick(self) -> None:
        self.do(self.life.tick(self.now, self.random.randrange(4), self.random.random() < 0.8))
        if self.random.random() < 0.2:
            self.do(self.life.scale_down(self.random.randrange(3)))

    def unload(self) -> None:
        if self.random.random() < 0.3:
            self.do(self.random.choice([self.life.drain_all, self.life.rest])())
            if self.random.random() < 0.3:
                self.do(self.life.hurry())

    def remove(self) -> None:
        self.calls["remove"] -= 1
        self.do(self.life.remove())

    def check(self) -> None:
        life = self.life
        assert set(life.replicas) == self.loading | self.alive, "it knows of every worker, and of no other"
        assert life.num_active() <= life.max_replicas
        for number, replica in life.replicas.items():
            assert replica.in_flight == self.requests.count(number)
            assert (replica.state == "stopping") == (number in self.stopping)
            assert replica.state != "draining" or replica.in_flight, "one without requests is stopped"
        if life.removed:
            assert not life.num_active()

    def finish(self) -> None:
        """Let everything that was begun come to its end."""
        if not self.life.removed:
            self.do(self.life.remove())
        while self.requests:
            self.end()
        while self.life.replicas:
            self.load()
            self.stop()
            self.sleep()
            self.check()


def test_ten_thousand_random_orders_of_events() -> None:
    for seed in range(10_000):
        world = _World(seed)
        try:
            for _ in range(world.random.randrange(5, 60)):
                world.step()
            world.finish()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
