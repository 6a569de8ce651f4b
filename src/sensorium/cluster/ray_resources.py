"""Ray's nodes and resources, which are dictionaries: what a worker takes of them, and how they are shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sensorium.cluster.nodes import gpu_info
from sensorium.cluster.placement import Ask
from sensorium.settings import GIB

_LEAST_CPU = 0.01  # Ray reserves something or nothing at all


def bundle_of(ask: Ask) -> dict[str, float]:
    """Return what Ray is to reserve for a worker. What it calls memory is the host's; that of a GPU goes by shares."""
    amounts = {"CPU": ask.num_cpus, "GPU": ask.num_gpus, "memory": float(ask.host_bytes)}
    return {name: amount for name, amount in amounts.items() if amount} or {"CPU": _LEAST_CPU}


def could_hold(nodes: Sequence[Mapping[str, Any]], bundle: Mapping[str, float], node_id: str | None = None) -> bool:
    """Whether a node, or the one that is named, would have room if nothing else ran there."""
    return any(
        all(node["Resources"].get(name, 0.0) >= amount for name, amount in bundle.items())
        for node in nodes
        if node["Alive"] and node_id in (None, node["NodeID"])
    )


def shown(resources: Mapping[str, float]) -> str:
    """Return resources as a message has them: "2 CPU, 1 GPU, 5.0 GiB memory"."""
    parts = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if name in resources]
    if "memory" in resources:
        parts.append(f"{resources['memory'] / GIB:.1f} GiB memory")
    return ", ".join(parts)


def row_of(node: Mapping[str, Any], held: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
    """Return what GET /workers shows of one of Ray's nodes; `held` has node, model and process id of each worker."""
    have: dict[str, float] = node["Resources"] if node["Alive"] else {}
    url = f"ray://{node['NodeManagerAddress']}"
    return {
        "worker_id": node["NodeID"],
        "worker_url": url,
        "public_worker_url": url,
        "status": "active" if node["Alive"] else "inactive",
        "last_heartbeat": None,
        "gpu_info": {**gpu_info(()), "gpu_count": int(have.get("GPU", 0))},
        "cpu_count": have.get("CPU", 0.0),
        "total_memory_gb": round(have.get("memory", 0.0) / GIB, 2),
        "available_memory_gb": None,
        "instances": {
            f"{name}#{pid}": {"alias": name, "status": "running", "pid": pid}
            for node_id, name, pid in held
            if node_id == node["NodeID"]
        },
    }
