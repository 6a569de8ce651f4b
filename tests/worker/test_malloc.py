"""Freed memory stays for the next tensor, counted in pages that the kernel had to bring."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys, threading
from sensorium.worker.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import torch

def run():
    for _ in range(10):
        torch.ones(3 << 20)  # 12 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(3 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

torch.set_num_threads(1)
thread = threading.Thread(target=run)  # as the engine's: not the main thread, whose arena is another
thread.start()
thread.join()
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc's malloc")
def test_a_tensor_finds_the_pages_of_the_one_before() -> None:
    pages = 20 * (12 << 20) // 4096  # of the tensors; fewer where the kernel hands out huge pages
    kept, plain = _faults("kept"), _faults("plain")
    assert kept < pages / 100
    assert kept < plain or plain < pages / 100
