from __future__ import annotations

import os
from pathlib import Path

import pytest

from sensorium import cores


def test_a_container_has_the_share_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores.cpu_share(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.cpu_share(tmp_path) is None
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cores.cpu_share(tmp_path) == 0.5
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    assert cores.usable_cores() == 1
    (tmp_path / "cpu.max").write_text("6400000 100000\n")  # more than there are
    assert cores.usable_cores() == len(os.sched_getaffinity(0))


def test_the_share_of_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cores.cpu_share(tmp_path) is None
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    assert cores.cpu_share(tmp_path) == 1.5


@pytest.mark.parametrize(
    ("said", "threads"), [("1", 1), ("1,2", 1), ("64", None), ("0", None), ("many", None), ("", None)]
)
def test_omp_num_threads_counts_as_it_does_for_torch(
    said: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert cores.default_threads() == (threads or cores.usable_cores())


def test_waiting_is_the_users_choice_first() -> None:
    unset: dict[str, str] = {}
    cores.wait_briefly(unset)
    assert unset == {"GOMP_SPINCOUNT": "10000"}
    passive = {"OMP_WAIT_POLICY": "passive"}
    cores.wait_briefly(passive)
    assert passive == {"OMP_WAIT_POLICY": "passive"}
