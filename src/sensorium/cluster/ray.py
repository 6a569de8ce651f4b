"""Workers placed by Ray: the only file that imports it. Ray finds a machine and keeps its resources; the rest is ours.

Each worker has a Ray actor of its own, and that a node agent; the gateway talks to the agent as to one that joined.
Actors belong to the gateway's Ray job: Ray ends them with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sensorium.cluster import tcp, token
from sensorium.cluster.node import Node
from sensorium.cluster.nodes import HERE
from sensorium.cluster.placement import TOO_LARGE, Ask, ask_of
from sensorium.cluster.ray_resources import bundle_of, could_hold, row_of, shown
from sensorium.cluster.remote_process import RemoteProcess
from sensorium.errors import ConfigurationError, InvalidRequest, ModelUnavailable, NoRoom
from sensorium.settings import EngineSettings, Needs
from sensorium.worker.launcher import CHOSEN, PRELOAD
from sensorium.worker.spawner import Process

NAMESPACE = "serverless_vllm"  # the seed's; our actors have no names, so it holds nothing that could clash
LOCAL = "local"
AUTO = "auto"
_ROOM_S = 3.0  # how long Ray may look for room: its nodes report what is free a few times a second
_START_S = 120.0
_STORE_BYTES = 80 << 20  # Ray's own minimum, and a little
_NODE_LABEL = "ray.io/node-id"

T = TypeVar("T")

log = logging.getLogger(__name__)


class RaySpawner:
    """Starts each worker in a Ray actor.

    Args:
        address: of a running cluster, host:port; `auto`: the one this machine belongs to, else a new one; `local`: a
            new one.
        room_s: how long to wait for resources before there is no room.
        more: further arguments of `ray.init` for a new cluster.

    Raises:
        ConfigurationError: Ray is not installed, or the cluster is not there.
    """

    elsewhere = True

    def __init__(
        self,
        address: str = AUTO,
        *,
        entry: str = CHOSEN,
        preload: tuple[str, ...] = PRELOAD,
        room_s: float = _ROOM_S,
        more: dict[str, Any] | None = None,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigurationError("--cluster ray needs Ray, which is not installed: pip install 'sensorium[ray]'")
        self._entry = entry
        self._preload = preload
        self._room_s = room_s
        self._token = secrets.token_urlsafe(32)
        self._key = token.key_of(self._token)
        self._holders: dict[str, list[Holder]] = {}  # model -> actors
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="ray")  # its calls wait
        self._connect(address, more or {})

    def start(self) -> None:
        """Nothing: actors bring their own zygotes."""

    async def spawn(self, settings: EngineSettings, needs: Needs) -> tuple[socket.socket, Process]:
        """Start a worker where Ray finds room, away from other workers of the same model if that is possible.

        Raises:
            NoRoom: there is none; the message has what the cluster has.
            ModelUnavailable: the worker could not be started.
        """
        have_gpus = bool((await self._call(_resources)).get("GPU"))
        ask = ask_of(settings, needs, have_gpus)
        taken = [holder.node_id for holder in self._holders.get(ask.name, [])]
        holder = await self._hold(ask, taken)
        self._holders.setdefault(ask.name, []).append(holder)
        try:
            place, port = await self._call(lambda: holder.start(self._token, self._entry, self._preload))
            name = f"{place}/{holder.node_id[:8]}"
            node = await Node.connect(holder.worker_id, (place, port), self._key)
            node.lost.add_done_callback(lambda _: self._let_go(ask.name, holder))
            try:
                sock, process = await node.spawn(settings.model, ask, [])
            except BaseException:
                node.close()
                raise
        except BaseException:
            self._let_go(ask.name, holder)
            raise
        process.node = name
        process.exited.add_done_callback(lambda _: node.close("has ended its worker"))
        holder.process = process
        log.info("model %r: a worker is started on %s by Ray", ask.name, name)
        return sock, process

    def close(self) -> None:
        """End every actor, and leave the cluster."""
        import ray

        for name, holders in list(self._holders.items()):
            for holder in list(holders):
                self._let_go(name, holder)
        ray.shutdown()
        self._threads.shutdown(wait=False)

    async def rows(self) -> list[dict[str, Any]]:
        """Return a row of GET /workers for each of Ray's nodes."""
        nodes = await self._call(_nodes)
        held = [
            (holder.node_id, name, holder.process.pid)
            for name, holders in self._holders.items()
            for holder in holders
            if holder.process is not None
        ]
        return [row_of(node, held) for node in nodes]

    def _connect(self, address: str, more: dict[str, Any]) -> None:
        import ray

        always: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "configure_logging": False}
        try:
            if address == AUTO:
                with contextlib.suppress(ConnectionError):
                    ray.init(address=AUTO, **always)
                    return
            if address in (AUTO, LOCAL):
                # Nothing of ours goes through its object store, which would take a third of the memory.
                more = {"object_store_memory": _STORE_BYTES, "include_dashboard": False, **more}
                ray.init(address=LOCAL, **always, **more)
            else:
                socket.create_connection(tcp.address_of(address, "--ray-address"), tcp.CONNECT_S).close()
                ray.init(address=address, **always)  # would try for minutes
        except (OSError, ValueError, RuntimeError, InvalidRequest) as error:
            raise ConfigurationError(
                f"Ray could not be reached at {address!r} ({type(error).__name__}). Start it with `ray start --head`, "
                "name it as HOST:PORT, or give --ray-address local."
            ) from error

    async def _hold(self, ask: Ask, taken: list[str]) -> Holder:
        """Reserve what a worker takes: on a node without another worker of the model, or else on any."""
        named = None if ask.worker_id == HERE else ask.worker_id
        labels = [{_NODE_LABEL: named}] if named else [{}]
        if taken and not named:
            labels.insert(0, {_NODE_LABEL: f"!in({','.join(sorted(set(taken)))})"})
        for number, label in enumerate(labels):
            last = number == len(labels) - 1
            wait_s = self._room_s if last else min(1.0, self._room_s)
            reserving = self._call(functools.partial(_reserve, ask, label, wait_s))
            try:
                holder = await asyncio.shield(reserving)
            except asyncio.CancelledError:
                reserving.add_done_callback(_release)
                raise
            if holder is not None:
                return holder
        free, have, nodes = await self._call(lambda: (_available(), _resources(), _nodes()))
        bundle = bundle_of(ask)
        free = {name: free.get(name, 0.0) for name in have}  # Ray leaves out what is 0
        raise NoRoom(
            f"The Ray cluster has no room for the model {ask.name!r}, which takes {shown(bundle)}. No node has "
            f"that free; in all {shown(free)} are free of {shown(have)}. Unload models, lower what the model "
            "needs, or add a node.",
            code=None if could_hold(nodes, bundle, named) else TOO_LARGE,
        )

    def _call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _let_go(self, name: str, holder: Holder) -> None:
        holders = self._holders.get(name, [])
        if holder in holders:
            holders.remove(holder)
            holder.release()


class Holder:
    """One worker's resources in Ray, and the actor that has them."""

    def __init__(self, group: Any, actor: Any, node_id: str) -> None:
        self.node_id = node_id
        self.worker_id = f"ray-{secrets.token_hex(8)}"
        self.process: RemoteProcess | None = None
        self._group = group
        self._actor = actor

    def start(self, secret: str, entry: str, preload: tuple[str, ...]) -> tuple[str, int]:
        """Start the node agent in the actor; return its address. Waits: call it in a thread.

        Raises:
            ModelUnavailable: it did not start.
        """
        import ray

        try:
            started = self._actor.start.remote(self.worker_id, secret, entry, preload)
            host, port = ray.get(started, timeout=_START_S)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            raise ModelUnavailable(
                f"Ray could not start a worker on the node {self.node_id[:8]} ({type(error).__name__}). Is Sensorium "
                "installed there, in the same version?"
            ) from error
        return str(host), int(port)

    def release(self) -> None:
        """Give the resources back. What still runs there is ended."""
        import ray
        from ray.util.placement_group import remove_placement_group

        # The cluster itself may be gone.
        with contextlib.suppress(ray.exceptions.RayError, RuntimeError, ValueError, ConnectionError):
            ray.kill(self._actor)
        with contextlib.suppress(ray.exceptions.RayError, RuntimeError, ValueError, ConnectionError):
            remove_placement_group(self._group)


def _release(reserved: asyncio.Future[Holder | None]) -> None:
    """Give back what was reserved for somebody who had gone meanwhile."""
    if not reserved.cancelled() and reserved.exception() is None:
        holder = reserved.result()
        if holder is not None:
            holder.release()


class AgentActor:
    """What runs in Ray's process: it holds the resources, and a node agent that ends with it."""

    def __init__(self) -> None:
        self._agent: subprocess.Popen[str] | None = None

    def start(self, worker_id: str, secret: str, entry: str, preload: tuple[str, ...]) -> tuple[str, int]:
        """Start the agent; return where it listens."""
        import ray

        host = ray.util.get_node_ip_address()
        # Not in this process: Ray's threads would be forked with the workers, and its handlers get their signals.
        self._agent = subprocess.Popen(
            [sys.executable, "-m", "sensorium.cluster.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        assert self._agent.stdin is not None
        assert self._agent.stdout is not None
        start = {"worker_id": worker_id, "token": secret, "host": host, "entry": entry, "preload": preload}
        self._agent.stdin.write(json.dumps(start) + "\n")
        self._agent.stdin.flush()
        return host, int(json.loads(self._agent.stdout.readline())["port"])


def _reserve(ask: Ask, label: dict[str, str], wait_s: float) -> Holder | None:
    """Return an actor with what is asked for; None: there is no room. One bundle is always on one node."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    bundle = bundle_of(ask)
    options: dict[str, Any] = {"bundle_label_selector": [label]} if label else {}
    group = placement_group([bundle], strategy="SPREAD", **options)
    try:
        if not group.wait(wait_s):
            remove_placement_group(group)
            return None
        node_id = next(iter(placement_group_table(group)["bundles_to_node_id"].values()))
        actor = (
            ray.remote(AgentActor)
            .options(
                num_cpus=bundle.get("CPU", 0),
                num_gpus=bundle.get("GPU", 0),
                memory=bundle.get("memory") or None,
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
            )
            .remote()
        )
    except BaseException:
        remove_placement_group(group)
        raise
    return Holder(group, actor, str(node_id))


def _resources() -> dict[str, float]:
    import ray

    return dict(ray.cluster_resources())


def _available() -> dict[str, float]:
    import ray

    return dict(ray.available_resources())


def _nodes() -> list[dict[str, Any]]:
    import ray

    return list(ray.nodes())
