"""Which threads of a worker compute on several cores: the engine's alone, and on as many as suits each step.

Every thread that runs a parallel torch operation gets a team of OpenMP threads of its own, which lives as long as it
does. With more such threads than cores, libgomp no longer lets a team wait awake between two operations, and waking
one takes longer than most operations of a decode step: a step of 46 ms took 57. So what reads the weights is a thread
that ends, and the threads that prepare prompts compute on one core.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from sensorium.engine.team import Team


def engine_team(num_threads: int, device: torch.device) -> Team:
    """Return what sets the number of the engine's threads, `num_threads` at most. Beside a GPU they do not matter."""
    return Team(num_threads if device.type == "cpu" else 1, torch.set_num_threads)


def single_threaded_pool(num_threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads, already started, run torch operations on one core each.

    The engine's thread calls torch.set_num_threads after this: the last call also decides for libraries that know one
    number for the whole process.
    """
    all_there = threading.Barrier(num_threads + 1)

    def prepare() -> None:
        torch.get_num_threads()  # once per thread torch takes the process's number; it must not come later
        torch.set_num_threads(1)
        all_there.wait()

    pool = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
    for _ in range(num_threads):
        pool.submit(prepare)
    all_there.wait()
    return pool
