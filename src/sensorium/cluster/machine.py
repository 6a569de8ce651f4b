"""What a machine has, and what of it is free: processors, memory, GPUs. Read without torch."""

from __future__ import annotations

import os
import shutil
import subprocess

import msgspec
import psutil

from sensorium.cores import usable_cores

_QUERY = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,memory.free,utilization.gpu",
    "--format=csv,noheader,nounits",
)
_QUERY_S = 10.0


class Gpu(msgspec.Struct, frozen=True):
    """One GPU; memory in bytes, utilization in 0..1."""

    name: str
    total_bytes: int
    free_bytes: int
    utilization: float = 0.0


class Machine(msgspec.Struct, frozen=True):
    """One machine; memory in bytes."""

    num_cpus: float
    memory_bytes: int
    free_bytes: int
    gpus: tuple[Gpu, ...] = ()


def look(gpus: tuple[Gpu, ...] = ()) -> Machine:
    """Return what this machine has now. Cheap; GPUs are looked at by `look_at_gpus`, which is not."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit = _cgroup_bytes("memory.max")
    if limit is not None and limit < total:  # a container's share
        used = _cgroup_bytes("memory.current") or 0
        total, free = limit, min(free, max(0, limit - used))
    return Machine(float(usable_cores()), total, free, gpus)


def look_at_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use, as nvidia-smi describes them. May take seconds."""
    if shutil.which(_QUERY[0]) is None:
        return ()
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_gpus(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def read_gpus(text: str, visible: str | None = None) -> tuple[Gpu, ...]:
    """Read what nvidia-smi prints: number, id, name, MiB in all, MiB free, percent used; a line each.

    `visible` has CUDA's form: numbers or ids, separated by commas, in the order in which they count.
    """
    gpus: dict[str, Gpu] = {}
    names: dict[str, str] = {}
    for line in text.strip().splitlines():
        if line.count(",") < _QUERY[1].count(","):
            continue  # a warning: "infoROM is corrupted at gpu 0000:00:1E.0"
        index, uuid, rest = (part.strip() for part in line.split(",", 2))
        name, total, free, used = (part.strip() for part in rest.rsplit(",", 3))
        busy = float(used) / 100 if used.replace(".", "", 1).isdigit() else 0.0
        if total.isdigit() and free.isdigit():  # "[N/A]" where the memory is the machine's own
            gpus[index] = Gpu(name, int(total) << 20, int(free) << 20, busy)
            names[index] = uuid
    if visible is None:
        return tuple(gpus.values())
    chosen = []
    for wanted in filter(None, map(str.strip, visible.split(","))):
        found = [index for index, uuid in names.items() if wanted == index or uuid.startswith(wanted)]
        if not found:
            break  # CUDA, too, ends the list at the first name that it does not know
        chosen.append(gpus[found[0]])
    return tuple(chosen)


def _cgroup_bytes(name: str) -> int | None:
    try:
        with open(f"/sys/fs/cgroup/{name}") as file:
            return int(file.read())
    except (OSError, ValueError):  # none, or "max"
        return None
