"""Runs this machine's part of a cluster until a signal ends it: the agent, and its membership at the gateway."""

from __future__ import annotations

import asyncio
import signal
import socket

from sensorium.cluster.agent import Agent
from sensorium.cluster.join import Joining
from sensorium.worker.launcher import Launcher


def run(name: str, url: str, manager_url: str, key: bytes, launcher: Launcher, listener: socket.socket) -> int:
    """Serve the gateway at `manager_url` on `listener`, known there as `name` at `url`; return the exit status."""
    return asyncio.run(_run(name, url, manager_url, key, launcher, listener))


async def _run(name: str, url: str, manager_url: str, key: bytes, launcher: Launcher, listener: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    agent = Agent(name, key, launcher)
    serving = loop.create_task(agent.serve(listener))
    joining = loop.create_task(Joining(agent, url, manager_url, key).run())
    stopped = loop.create_task(stop.wait())
    try:
        await asyncio.wait([serving, joining, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (joining, serving, stopped):  # goodbye first, while the agent still answers
            task.cancel()
            await asyncio.wait([task])
    for task in (serving, joining):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return 0
