"""What this machine can do at best: bytes read a second, and bf16 and fp32 multiply-adds a second, on every core."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from measure import tell


def _best(run: Callable[[], object], repeats: int) -> float:
    """Shortest time of `repeats` runs, in seconds."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def read_gb_s() -> float:
    """Gigabytes read a second: the sum of 1 GiB of floats, larger than most caches."""
    numbers = torch.ones(256 << 20)
    return numbers.numel() * 4 / _best(numbers.sum, 8) / 1e9


def matmul_gflop_s(dtype: torch.dtype) -> float:
    """GFLOP/s of a square product, the better of two sizes."""
    rates = []
    for size in (2048, 4096):
        a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        rates.append(2 * size**3 / _best(lambda a=a, b=b: a @ b, 5) / 1e9)  # type: ignore[misc]
    return max(rates)


if __name__ == "__main__":
    tell(
        "limits",
        read_gb_s=read_gb_s(),
        bf16_gflop_s=matmul_gflop_s(torch.bfloat16),
        fp32_gflop_s=matmul_gflop_s(torch.float32),
    )
