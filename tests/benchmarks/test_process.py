import sys
import time
from pathlib import Path

import psutil
import pytest
from engines import Program
from process import Failed, Running

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


def program(code: str) -> Program:
    return Program("probe", "probe", [sys.executable, "-c", code], {"PYTHONPATH": BENCHMARKS})


def test_told_lines_are_found_among_other_output(tmp_path: Path) -> None:
    code = "import measure; print('noise', end=''); measure.tell('first_token'); measure.tell('prefill', tokens=2)"
    with Running(program(code), [], tmp_path / "log") as running:
        running.wait(30)
    first, prefill = running.told()
    assert first["what"] == "first_token"
    assert first["at"] >= running.started_at
    assert prefill["tokens"] == 2


def test_a_failure_carries_the_end_of_the_log(tmp_path: Path) -> None:
    with (
        pytest.raises(Failed, match=r"probe ended with status 3(?s:.*)out of luck"),
        Running(program("print('out of luck'); raise SystemExit(3)"), [], tmp_path / "log") as running,
    ):
        running.wait(30)


def test_a_program_that_is_not_there_fails_by_name(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"probe cannot be started: .*nowhere: No such file"):
        Running(Program("probe", "probe", [str(tmp_path / "nowhere")]), [], tmp_path / "log")


def test_memory_counts_children_and_leaving_ends_them(tmp_path: Path) -> None:
    child = "b = bytearray(b'x') * 60_000_000; import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with Running(program(code), [], tmp_path / "log") as running:
        deadline = time.monotonic() + 30
        while running.peak_bytes < 60_000_000 and time.monotonic() < deadline:
            time.sleep(0.05)
        (started,) = psutil.Process(running._process.pid).children()
    assert running.peak_bytes >= 60_000_000
    psutil.wait_procs([started], timeout=5)
    assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE
