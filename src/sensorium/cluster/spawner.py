"""Workers here and on the machines that joined, as one place where workers come from."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from sensorium.cluster import machine
from sensorium.cluster.messages import NO_FOLDER
from sensorium.cluster.nodes import HERE, Nodes
from sensorium.cluster.placement import Ask, Place, ask_of, choose
from sensorium.errors import ModelUnavailable, NoRoom
from sensorium.settings import EngineSettings, Needs
from sensorium.worker.launcher import Launcher
from sensorium.worker.spawner import Process, Spawner


class ClusterSpawner:
    """Starts a worker on the machine that has most room for it.

    Where nobody has joined, everything goes to `home`, unasked.

    Args:
        home: the zygote of this machine; or Ray, which places by itself and goes before machines that joined.
        nodes: the machines that joined.
    """

    def __init__(self, home: Spawner, nodes: Nodes) -> None:
        self.nodes = nodes
        self._home = home
        self._here: dict[object, Ask] = {}  # what each worker of this machine was promised
        self._gpus: tuple[machine.Gpu, ...] | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether workers may be placed on other machines, so that not only this one's memory counts."""
        return self._home.elsewhere or bool(self.nodes.active)

    def start(self) -> None:
        """Start the zygote of this machine."""
        self._home.start()

    async def spawn(self, settings: EngineSettings, needs: Needs) -> tuple[socket.socket, Process]:
        """Start a worker on the best machine; where that fails, on the next best.

        Raises:
            NoRoom: no machine has what it needs now.
            ModelUnavailable: no worker could be started; the message has every machine's reason.
        """
        if not self.nodes.active and needs.worker_id in (None, HERE):
            return await self._home.spawn(settings, needs)
        if not isinstance(self._home, Launcher):
            return await self._spawn_beside(settings, needs)
        places = [await self._place_here(settings.name or settings.model)]
        places += [node.place(settings.name or settings.model) for node in self.nodes.active]
        ask = ask_of(settings, needs, any(place.machine.gpus for place in places))
        return await self._spawn_at(settings, ask, places)

    def close(self) -> None:
        """Let go of the zygote and of every machine that joined."""
        self.nodes.close()
        self._home.close()

    async def rows(self) -> list[dict[str, Any]]:
        """Return what GET /workers shows."""
        rows = self.nodes.rows()
        if hasattr(self._home, "rows"):
            rows = await self._home.rows() + rows
        return rows

    async def _spawn_beside(self, settings: EngineSettings, needs: Needs) -> tuple[socket.socket, Process]:
        """Ask a home that places by itself, and machines that joined if it has no room."""
        if not any(node.id == needs.worker_id for node in self.nodes.active):
            try:
                return await self._home.spawn(settings, needs)
            except NoRoom:
                if needs.worker_id is not None:
                    raise
        places = [node.place(settings.name or settings.model) for node in self.nodes.active]
        ask = ask_of(settings, needs, any(place.machine.gpus for place in places))
        return await self._spawn_at(settings, ask, places)

    async def _spawn_at(self, settings: EngineSettings, ask: Ask, places: list[Place]) -> tuple[socket.socket, Process]:
        reasons: list[ModelUnavailable] = []
        for choice in choose(ask, places):
            node = next((node for node in self.nodes.active if node.id == choice.id), None)
            try:
                if choice.id == HERE:
                    return await self._spawn_here(settings, ask)
                if node is None:
                    continue
                if not os.path.isabs(settings.model) and os.path.exists(settings.model):
                    raise ModelUnavailable(f"{settings.model} is a folder of the gateway's.", code=NO_FOLDER)
                return await node.spawn(settings.model, ask, choice.gpus)
            except ModelUnavailable as error:
                reasons.append(error)
        raise ModelUnavailable(
            f"No worker could be started for the model {ask.name!r}. " + " ".join(error.message for error in reasons)
        )

    async def _spawn_here(self, settings: EngineSettings, ask: Ask) -> tuple[socket.socket, Process]:
        worker = object()
        self._here[worker] = ask  # before it is there: two who ask at once are not both promised the last place
        try:
            sock, process = await self._home.spawn(settings, Needs())
        except BaseException:
            del self._here[worker]
            raise
        process.exited.add_done_callback(lambda _: self._here.pop(worker))
        return sock, process

    async def _place_here(self, name: str) -> Place:
        if self._gpus is None or self._gpus:  # where there are none, none come
            self._gpus = await asyncio.to_thread(machine.look_at_gpus)
        asks = self._here.values()
        return Place(
            HERE,
            machine.look(self._gpus),
            sum(ask.num_cpus for ask in asks),
            sum(ask.host_bytes for ask in asks),
            (),
            sum(ask.name == name for ask in asks),
        )
