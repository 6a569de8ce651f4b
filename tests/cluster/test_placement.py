from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.cluster.machine import Gpu, Machine, read_gpus
from sensorium.cluster.placement import Ask, Choice, Place, ask_of, choose
from sensorium.cluster.session import visible
from sensorium.errors import NoRoom
from sensorium.settings import GIB, EngineSettings, Needs


def machine(free: int = 8, total: int = 16, cpus: float = 4, *gpus: tuple[int, int]) -> Machine:
    return Machine(cpus, total * GIB, free * GIB, tuple(Gpu("H", t * GIB, f * GIB) for f, t in gpus))


def chosen(ask: Ask, *places: Place) -> list[str]:
    return [choice.id for choice in choose(ask, places)]


def test_most_free_memory_first_but_replicas_are_spread() -> None:
    places = [Place("a", machine(4)), Place("b", machine(8)), Place("c", machine(8))]
    assert chosen(Ask("m"), *places) == ["b", "c", "a"]
    places[1] = Place("b", machine(8), replicas=1)
    assert chosen(Ask("m"), *places) == ["c", "a", "b"]


def test_what_was_promised_counts_before_it_is_taken() -> None:
    idle, promised = Place("a", machine(6)), Place("b", machine(10), memory_bytes=13 * GIB)
    assert chosen(Ask("m", memory_bytes=4 * GIB), idle, promised) == ["a"]
    with pytest.raises(NoRoom) as caught:
        choose(Ask("m", memory_bytes=7 * GIB), [idle, promised])
    assert caught.value.message == (
        "No machine has room for the model 'm', which takes 7.0 GiB of memory. a: 4 CPUs and 6.0 of 16.0 GiB free; "
        "b: 4 CPUs and 3.0 of 16.0 GiB free. Unload models, lower max_model_len or gpu_memory_utilization, or add a "
        "worker."
    )


def test_cpus_are_counted() -> None:
    place = Place("a", machine(cpus=4), num_cpus=2.5)
    assert chosen(Ask("m", num_cpus=1.5), place) == ["a"]
    with pytest.raises(NoRoom, match=r"takes 2 CPUs\. a: 1\.5 CPUs and"):
        choose(Ask("m", num_cpus=2), [place])


def test_a_worker_that_is_named_is_the_only_one() -> None:
    places = [Place("a", machine(8)), Place("b", machine(1))]
    assert chosen(Ask("m", worker_id="b"), *places) == ["b"]
    with pytest.raises(NoRoom, match=r"worker 'c', which is not here now\. Here are: 'a', 'b'"):
        choose(Ask("m", worker_id="c"), places)


def test_gpus_by_share_and_by_number() -> None:
    two = Place("a", machine(8, 16, 4, (80, 80), (70, 80)), gpus=(0.6, 0.0))
    assert choose(Ask("m", num_gpus=0.5), [two]) == [Choice("a", [1])]
    assert choose(Ask("m", num_gpus=0.4), [two]) == [Choice("a", [0])]  # most free memory
    assert choose(Ask("m", num_gpus=2), [Place("a", two.machine)]) == [Choice("a", [0, 1])]
    with pytest.raises(NoRoom, match=r"takes 2 GPU. a: .* GPU 0: 80.0 of 80.0 GiB free \(60% promised\), GPU 1: 70.0"):
        choose(Ask("m", num_gpus=2), [two, Place("b", machine(64, 64))])
    taken = Place("c", machine(8, 16, 4, (10, 80)))  # by a program that is not ours
    with pytest.raises(NoRoom):
        choose(Ask("m", num_gpus=0.9), [taken])


def test_what_was_not_said_follows_from_the_settings() -> None:
    settings = EngineSettings("m", gpu_memory_utilization=0.5)
    assert ask_of(settings, Needs(), have_gpus=True).num_gpus == 0.5
    assert ask_of(settings, Needs(), have_gpus=False).num_gpus == 0
    assert ask_of(settings, Needs(num_gpus=0.2), have_gpus=True).num_gpus == 0.2
    assert ask_of(settings, Needs(num_gpus=1.5), have_gpus=True).num_gpus == 2
    assert ask_of(EngineSettings("m", device="cpu"), Needs(), have_gpus=True).num_gpus == 0
    assert ask_of(EngineSettings("m", tensor_parallel_size=4), Needs(), have_gpus=True).num_gpus == 4
    assert ask_of(EngineSettings("m", name="n"), Needs(2, None, 5, "w"), have_gpus=False) == Ask("n", 2, 5, 0, "w")


numbers = st.integers(0, 20)
asks = st.builds(Ask, st.just("m"), numbers.map(float), numbers.map(lambda n: n * GIB), st.sampled_from([0, 0.3, 1, 2]))
machines = st.builds(
    lambda free, total, cpus, gpus: machine(min(free, total), total, cpus, *[(min(f, 10), 10) for f in gpus]),
    *(numbers, numbers, numbers),
    st.lists(numbers, max_size=3),
)


@given(
    st.lists(
        st.builds(
            lambda size, at, cpus, memory, shares, replicas: Place(
                at, size, float(cpus), memory * GIB, tuple(shares[: len(size.gpus)]), replicas
            ),
            machines,
            st.uuids().map(str),
            *(numbers, numbers, st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=3), st.integers(0, 3)),
        ),
        max_size=4,
    ),
    asks,
)
def test_nothing_is_promised_twice(places: list[Place], ask: Ask) -> None:
    try:
        choices = choose(ask, places)
    except NoRoom:
        choices = []
    by_id = {place.id: place for place in places}
    for choice in choices:
        place = by_id[choice.id]
        assert place.num_cpus + ask.num_cpus <= place.machine.num_cpus + 1e-6 or not ask.num_cpus
        if not ask.num_gpus:
            assert ask.memory_bytes <= max(0, place.machine.memory_bytes - place.memory_bytes)
            assert ask.memory_bytes <= place.machine.free_bytes
        assert len(set(choice.gpus)) == len(choice.gpus) == (0 if not ask.num_gpus else max(1, int(ask.num_gpus)))
        for index in choice.gpus:
            share = place.gpus[index] if index < len(place.gpus) else 0.0
            assert share + min(1, ask.num_gpus) <= 1 + 1e-6
    replicas = [by_id[choice.id].replicas for choice in choices]
    assert replicas == sorted(replicas)


SMI = """\
0, GPU-aaaa, NVIDIA H200, 143771, 143000, 3
1, GPU-bbbb, NVIDIA H200, 143771, 1000, 97
2, GPU-cccc, NVIDIA GB10, [N/A], [N/A], 0
"""


def test_gpus_as_nvidia_smi_prints_them() -> None:
    first, second = read_gpus(SMI)
    assert first == Gpu("NVIDIA H200", 143771 << 20, 143000 << 20, 0.03)
    assert read_gpus(SMI, "1,0") == (second, first)
    assert read_gpus(SMI, "GPU-bb") == (second,)
    assert read_gpus(SMI, "0,7,1") == (first,)
    assert read_gpus(SMI, "") == ()
    assert read_gpus("") == ()


def test_a_worker_sees_the_gpus_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible([]) == {}
    assert visible([1, 3]) == {"CUDA_VISIBLE_DEVICES": "1,3"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-bb")
    assert visible([1]) == {"CUDA_VISIBLE_DEVICES": "GPU-bb"}


def test_a_warning_among_the_gpus_is_passed_over() -> None:
    """nvidia-smi prints such lines on standard output, behind the table that it was asked for."""
    warned = SMI.rstrip("\n") + "\n\nWARNING: infoROM is corrupted at gpu 0000:00:1E.0\n"
    assert read_gpus(warned) == read_gpus(SMI)
