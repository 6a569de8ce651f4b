"""How much memory this machine has for models."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import psutil

_HOST_SHARE = 0.8
_DEVICE_SHARE = 0.9
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_TAKEN = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")
HOST = "host"


def budgets(host: int | None = None, device: int | None = None) -> dict[str, int]:
    """Return memory -> bytes that models may take together. `device`: of each accelerator; None: what is usual."""
    devices = device_budgets()
    return {HOST: host or host_budget(), **{name: device or usual for name, usual in devices.items()}}


def host_budget() -> int:
    """Bytes of host memory that models may take together, where nothing else is said."""
    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # no limit, or another system
        total = min(total, int(_CGROUP.read_text()))
    return int(total * _HOST_SHARE)


def host_free() -> int:
    """Bytes that could be taken now without swapping."""
    return psutil.virtual_memory().available


def device_budgets() -> dict[str, int]:
    """Return {"cuda:0": bytes, ...}: what models may take of each NVIDIA GPU; {} where there is none.

    Asks nvidia-smi, because the gateway has no torch.
    """
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        totals = [int(line) << 20 for line in said.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return {f"cuda:{number}": int(total * _DEVICE_SHARE) for number, total in enumerate(totals)}


def process_bytes(pid: int) -> int:
    """Return what a process and its children take of the host's memory: their own, and their share of what is shared.

    Pages of mapped files are left out: the kernel takes those back when it needs them. 0 where it does not tell.
    """
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for process in family:
        with contextlib.suppress(OSError, ValueError):
            said = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) << 10 for line in said.splitlines() if line.startswith(_TAKEN))
    return total
