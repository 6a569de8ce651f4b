"""Only the engine's thread computes on several cores."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import torch

from sensorium.worker.openmp import single_threaded_pool


def test_threads_of_the_pool_compute_on_one_core_and_the_caller_on_its_own_number() -> None:
    before = torch.get_num_threads()
    try:
        pool = single_threaded_pool(3, "prepare")
        torch.set_num_threads(2)
        together = threading.Barrier(3)  # so that each of the three answers once

        def count() -> tuple[str, int]:
            together.wait(timeout=30)
            torch.ones(1 << 20).add_(1)  # large enough for a team, if it had one
            return threading.current_thread().name, torch.get_num_threads()

        futures: list[Future[tuple[str, int]]] = [pool.submit(count) for _ in range(3)]
        answers = dict(future.result(timeout=30) for future in futures)
        assert sorted(answers) == ["prepare_0", "prepare_1", "prepare_2"]
        assert set(answers.values()) == {1}
        assert torch.get_num_threads() == 2
        pool.shutdown()
    finally:
        torch.set_num_threads(before)
