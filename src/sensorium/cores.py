"""How many cores this process may compute on, and how its threads wait for each other."""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def usable_cores() -> int:
    """Return the cores that this process was left: by `taskset` and cpusets, and by a container's share (`--cpus`)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cpu_share(_CGROUP)
    return cores if share is None else min(cores, math.ceil(share))


def default_threads() -> int:
    """Return the threads to compute with where nobody said a number: what OMP_NUM_THREADS allows, as in torch."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list is for nested regions
    return min(int(wanted), usable_cores()) if wanted.isdecimal() and int(wanted) else usable_cores()


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Set how long OpenMP's threads wait awake, unless somebody has: libgomp reads it once, when torch is imported.

    The gaps between the parallel operations of a step are so short that waking a thread costs more than the operation:
    with 1000 turns of waiting awake a stream beside pictures had 136 ms between two tokens, with 10000 106. The default
    is very many, which take the core from whoever has work: a step of 66 ms took a second beside one busy neighbour.
    """
    if not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = "10000"


def cpu_share(cgroup: Path) -> float | None:
    """Return the cores' worth of time that a container may use, of cgroup v2 or v1; None: no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return share if share > 0 else None  # -1: no limit
