from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from sensorium.worker.prctl import Orphans
from tests.workers import process_gone

ADOPTER = """
import os, subprocess, sys, time
from sensorium.worker import prctl
prctl.adopt_orphans()
orphans = prctl.Orphans()
# Each parent ends at once; its children are ours then, and end a moment later.
script = "import subprocess, sys; [subprocess.Popen(['sleep', '0.2']) for _ in range(3)]"
for _ in range(2):
    subprocess.run([sys.executable, "-c", script], check=True)
deadline = time.monotonic() + 20
import psutil
while psutil.Process().children() and time.monotonic() < deadline:
    time.sleep(0.1)
    orphans.reap()
print(len(psutil.Process().children()))
"""


def test_adopted_processes_that_end_are_let_go() -> None:
    done = subprocess.run([sys.executable, "-c", ADOPTER], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_a_child_that_somebody_waits_for_is_left_to_him() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    orphans = Orphans()
    deadline = time.monotonic() + 20
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    orphans.reap()
    assert child.wait(10) == 7
    orphans.reap()
    assert process_gone(child.pid)


def test_one_that_another_thread_waits_for_meanwhile_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    orphans = Orphans()
    orphans._seen = child.pid
    look = os.waitid

    def and_then(*arguments: int) -> os.waitid_result | None:
        found = look(*arguments)
        child.wait(10)
        return found

    deadline = time.monotonic() + 20
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.setattr(os, "waitid", and_then)
    orphans.reap()
    assert child.returncode == 0
