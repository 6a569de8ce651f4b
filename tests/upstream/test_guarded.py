"""A program below a guardian, ended from two threads at once."""

from __future__ import annotations

import os
import sys

import pytest

from sensorium.upstream.guarded import Guarded


def test_its_lifeline_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Guarded("sensorium-test-")
    program.start([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ), lambda _: None, print)
    lifeline, close = program._lifeline, os.close
    closed: list[int] = []

    def closing(descriptor: int) -> None:
        closed.append(descriptor)
        if closed.count(lifeline) == 1:
            program.close(0.0)  # another thread, just now
        close(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", closing)
        program.close(10.0)
    assert closed.count(lifeline) == 1
    assert not program.folder.exists()
