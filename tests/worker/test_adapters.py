"""Which adapters are kept, read again, and put away."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sensorium.errors import ConfigurationError, ModelUnavailable
from sensorium.model.lora import Lora
from sensorium.types import Adapter
from sensorium.worker.adapters import Adapters


class Disk:
    def __init__(self) -> None:
        self.read: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, path: str) -> Lora:
        self.read.append(path)
        if path in self.broken:
            raise ConfigurationError(f"{path} is damaged.")
        return Lora(path, {}, frozenset(), 4)


def adapter(name: str, path: str = "") -> Adapter:
    return Adapter(name, path or f"/{name}")


def test_the_least_recently_used_is_put_away_and_read_again() -> None:
    disk = Disk()
    adapters = Adapters(disk, max_loras=2)
    first = adapters.get(adapter("a"))
    adapters.get(adapter("b"))
    assert adapters.get(adapter("a")) is first
    adapters.get(adapter("c"))
    assert adapters.num_kept == 2
    assert adapters.get(adapter("a")) is first
    adapters.get(adapter("b"))
    assert disk.read == ["/a", "/b", "/c", "/b"]


def test_without_a_name_it_is_the_base_or_the_one_that_is_always_on() -> None:
    assert Adapters(Disk(), 1).get(None) is None
    always = Adapters(Disk(), 1, adapter("default-lora")).get(None)
    assert always is not None
    assert always.key == "/default-lora"


def test_loading_reads_anew_and_unloading_forgets() -> None:
    disk = Disk()
    adapters = Adapters(disk, max_loras=4)
    before = adapters.get(adapter("a"))
    adapters.load(adapter("a", "/elsewhere"))
    assert adapters.num_kept == 1
    assert adapters.get(adapter("a", "/elsewhere")) is not before
    adapters.unload("a")
    adapters.unload("never there")
    assert adapters.num_kept == 0


def test_a_broken_one_leaves_what_was_there() -> None:
    disk = Disk()
    adapters = Adapters(disk, max_loras=4)
    before = adapters.get(adapter("a"))
    disk.broken.add("/a")
    with pytest.raises(ConfigurationError, match="/a is damaged"):
        adapters.load(adapter("a"))
    assert adapters.get(adapter("a")) is before
    disk.broken.add("/b")
    with pytest.raises(ModelUnavailable, match="The adapter 'b' cannot be loaded: /b is damaged"):
        adapters.get(adapter("b"))


def test_one_that_is_there_does_not_wait_for_another_that_is_read() -> None:
    disk, reading, go_on = Disk(), threading.Event(), threading.Event()

    def read(path: str) -> Lora:
        if path == "/slow":
            reading.set()
            go_on.wait(30)
        return disk(path)

    adapters = Adapters(read, max_loras=4)
    there = adapters.get(adapter("a"))
    with ThreadPoolExecutor() as threads:
        slow = [threads.submit(adapters.get, adapter("slow")) for _ in range(2)]
        assert reading.wait(30)
        try:
            assert threads.submit(adapters.get, adapter("a")).result(10) is there
        finally:
            go_on.set()
        assert slow[0].result(30) is slow[1].result(30)
    assert disk.read == ["/a", "/slow"]
