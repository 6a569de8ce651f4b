"""The machines that joined: registered, watched, listed, and forgotten."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import defaultdict
from typing import Any

from sensorium.cluster import tcp
from sensorium.cluster.link import SILENT_AFTER_S
from sensorium.cluster.machine import Gpu
from sensorium.cluster.node import Node
from sensorium.errors import InvalidRequest, ModelNotFound, SensoriumError
from sensorium.settings import GIB

HERE = "local"  # the worker_id of the gateway's own machine
_MOST = 1000  # names that are remembered
_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)

log = logging.getLogger(__name__)


class AlreadyJoined(SensoriumError):
    """Another machine goes by this name (409)."""

    status = 409
    type = "already_registered"
    default_code = "already_registered"


class Nodes:
    """The joined machines by their worker_id. Belongs to one event loop.

    Args:
        key: `token.key_of` the cluster's token.
        silent_after_s: a machine that was not heard of for this long is lost, with the workers on it.
    """

    def __init__(self, key: bytes, silent_after_s: float = SILENT_AFTER_S) -> None:
        self.key = key
        self._silent_after_s = silent_after_s
        self._nodes: dict[str, Node] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closing = False

    @property
    def active(self) -> list[Node]:
        """Machines that can be given workers, in the order they joined."""
        return [node for node in self._nodes.values() if not node.lost.done() and not node.leaving]

    async def register(self, worker_id: str, url: str) -> None:
        """Connect to the machine at `url`. One that joined before is connected to anew.

        Raises:
            InvalidRequest: the name or the address is none.
            AlreadyJoined: a machine at another address goes by this name, and is there.
            ModelUnavailable: it cannot be reached, or does not know the token.
        """
        if not _NAME.fullmatch(worker_id) or worker_id == HERE:
            raise InvalidRequest(
                f"worker_id is {worker_id[:100]!r}; it must be 1 to 100 letters, digits, dots and dashes, and not "
                f"{HERE!r}.",
                param="worker_id",
            )
        address = tcp.address_of(url)
        if worker_id not in self._nodes and len(self._nodes) >= _MOST:
            self._forget_one()
        async with self._turns[worker_id]:
            old = self._nodes.get(worker_id)
            if old is not None and not old.lost.done() and old.address != address:
                raise AlreadyJoined(
                    f"Another worker {worker_id!r} is connected, at {tcp.url_of(*old.address)}. Give this one another "
                    "--worker-id.",
                    param="worker_id",
                )
            node = await Node.connect(worker_id, address, self.key, self._silent_after_s)
            # Whoever is there now: unregistering, which waits for no turn, lets another registration come in between.
            old = self._nodes.pop(worker_id, None)
            if old is not None:
                old.close("was connected to anew")
            if self._closing:
                node.close()
                return
            self._nodes[worker_id] = node
            log.info("the worker %r at %s has joined", worker_id, tcp.url_of(*address))

    def heartbeat(self, worker_id: str) -> None:
        """Note that a machine believes to be one of ours.

        Raises:
            ModelNotFound: it is not, or no longer; it has to register.
        """
        node = self._nodes.get(worker_id)
        if node is None or node.lost.done():
            raise ModelNotFound(f"The worker {worker_id[:100]!r} is not registered.", code="worker_not_found")
        node.heard = time.time()

    def unregister(self, worker_id: str) -> None:
        """Let a machine go; workers on it end.

        Raises:
            ModelNotFound: there is none of this name.
        """
        node = self._nodes.pop(worker_id, None)
        if node is None:
            raise ModelNotFound(f"The worker {worker_id[:100]!r} is not registered.", code="worker_not_found")
        self._turns.pop(worker_id, None)
        node.close("has left")

    def rows(self) -> list[dict[str, Any]]:
        """Return what GET /workers shows of each machine."""
        return [row_of(node) for node in self._nodes.values()]

    def close(self) -> None:
        """Let every machine go."""
        self._closing = True
        for node in self._nodes.values():
            node.close("was let go by the gateway")

    def _forget_one(self) -> None:
        gone = next((name for name, node in self._nodes.items() if node.lost.done()), None)
        if gone is None:
            raise InvalidRequest(f"This gateway has {len(self._nodes)} workers; more are not taken.")
        del self._nodes[gone]
        self._turns.pop(gone, None)


def row_of(node: Node) -> dict[str, Any]:
    """Return what GET /workers shows of one machine: the fields of serverless_vllm's, and its memory and CPUs."""
    url = tcp.url_of(*node.address)
    instances = {
        f"{process.ask.name}#{process.pid}": {
            "alias": process.ask.name,
            "status": "running",
            "pid": process.pid,
            "created_at": process.started,
            "gpus": process.gpus,
        }
        for process in node.processes
        if process.pid
    }
    return {
        "worker_id": node.id,
        "worker_url": url,
        "public_worker_url": url,
        "status": "inactive" if node.lost.done() else "draining" if node.leaving else "active",
        "last_heartbeat": node.heard,
        "gpu_info": gpu_info(node.machine.gpus),
        "cpu_count": node.machine.num_cpus,
        "total_memory_gb": _gb(node.machine.memory_bytes),
        "available_memory_gb": _gb(node.machine.free_bytes),
        "instances": instances,
    }


def gpu_info(gpus: tuple[Gpu, ...]) -> dict[str, Any]:
    """Return serverless_vllm's description of a machine's GPUs; memory in GiB, over all of them."""
    return {
        "gpu_count": len(gpus),
        "gpu_names": [gpu.name for gpu in gpus],
        "total_memory_gb": _gb(sum(gpu.total_bytes for gpu in gpus)),
        "available_memory_gb": _gb(sum(gpu.free_bytes for gpu in gpus)),
        "utilization": round(sum(gpu.utilization for gpu in gpus) / len(gpus), 3) if gpus else 0.0,
    }


def _gb(size: int) -> float:
    return round(size / GIB, 2)
