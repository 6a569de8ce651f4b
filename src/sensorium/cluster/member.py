"""Runs this machine's part of a cluster until a signal ends it: the agent, and its membership at the gateway."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

from sensorium.cluster.agent import Agent
from sensorium.cluster.join import Joining
from sensorium.worker.launcher import Launcher

_LOOK_S = 0.1

log = logging.getLogger(__name__)


def run(
    name: str, url: str, manager_url: str, key: bytes, launcher: Launcher, listener: socket.socket, grace_s: float
) -> int:
    """Serve the gateway at `manager_url` on `listener`, known there as `name` at `url`; return the exit status.

    At the first signal no more work is taken, and what runs may finish for up to `grace_s`; a second one does not wait.
    """
    agent = Agent(name, key, launcher)
    return asyncio.run(_run(agent, Joining(agent, url, manager_url, key), listener, grace_s))


async def _run(agent: Agent, membership: Joining, listener: socket.socket, grace_s: float) -> int:
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, None)
    serving = loop.create_task(agent.serve(listener))
    joining = loop.create_task(membership.run())
    stopped = loop.create_task(signals.get())
    finished = hurried = None
    try:
        await asyncio.wait([serving, joining, stopped], return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            agent.leave()
            finished, hurried = loop.create_task(_finish(agent)), loop.create_task(signals.get())
            done, _ = await asyncio.wait(
                [serving, joining, finished, hurried], timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                log.warning("requests still run after %g s; they are ended", grace_s)
    finally:
        for task in (joining, serving, stopped, finished, hurried):  # goodbye first, while the agent still answers
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
    for task in (serving, joining):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return 0


async def _finish(agent: Agent) -> None:
    """Return when nothing runs here any more."""
    if agent.busy:
        log.info("no more work is taken; what runs may finish")
    while agent.busy:
        await asyncio.sleep(_LOOK_S)
