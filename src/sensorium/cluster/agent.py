"""A node agent: starts workers on this machine for a gateway on another. `python -m sensorium.cluster.agent` is one.

A gateway that knows the token opens a control connection, and one more for each worker, whose socket the worker itself
is given: frames do not pass through the agent. Workers end with the control connection they belong to, and with the
agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import threading

import msgspec

from sensorium.cluster import handshake, machine, tcp, token
from sensorium.cluster.session import Session
from sensorium.worker import prctl
from sensorium.worker.launcher import CHOSEN, PRELOAD, Launcher

GPUS_S = 5.0
_MOST_STRANGERS = 64  # connections that have not shown yet that they know the token

log = logging.getLogger(__name__)


class Agent:
    """Listens for gateways. Belongs to one event loop.

    Args:
        worker_id: what this machine is called in the cluster.
        key: `token.key_of` the cluster's token.
        launcher: forks the workers.

    Attributes:
        changed: set when a control connection begins or ends.
    """

    def __init__(self, worker_id: str, key: bytes, launcher: Launcher) -> None:
        self.worker_id = worker_id
        self.changed = asyncio.Event()
        self._key = key
        self._launcher = launcher
        self._sessions: dict[str, Session] = {}
        self._arriving: set[asyncio.Task[None]] = set()
        self._strangers: list[asyncio.Task[None]] = []  # of those, in the order in which they came
        self._gpus: tuple[machine.Gpu, ...] = ()
        self._seen = machine.look()
        self._leaving = False

    @property
    def busy(self) -> bool:
        """Whether workers run here, or are being started."""
        return any(session.busy for session in self._sessions.values())

    @property
    def connected(self) -> bool:
        """Whether a gateway has a control connection."""
        return bool(self._sessions)

    def machine(self) -> machine.Machine:
        """What this machine has now; where the system does not say (no descriptors are left), what it had last."""
        try:
            self._seen = machine.look(self._gpus)
        except OSError as error:
            log.warning("the machine's memory could not be looked at: %s", error)
        return self._seen

    def instances(self) -> dict[str, dict[str, object]]:
        """The workers that run here, by number and control connection."""
        return {
            f"{session.id[:8]}-{number}": {"model": model, "pid": pid}
            for session in self._sessions.values()
            for number, model, pid in session.workers()
        }

    def leave(self) -> None:
        """Take no more work. Gateways let what runs finish, and then end their workers here: see `busy`."""
        self._leaving = True
        for session in self._sessions.values():
            session.leave()

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until cancelled; then end every worker."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        self._launcher.start()
        self._gpus = await asyncio.to_thread(machine.look_at_gpus)
        looking = loop.create_task(self._keep_looking()) if self._gpus else None
        try:
            while True:
                sock, _ = await self._accept(listener)
                if len(self._strangers) >= _MOST_STRANGERS:
                    # Who knows the token shows it at once: the one that has been silent longest goes, not the new one.
                    self._strangers.pop(0).cancel()
                task = loop.create_task(self._receive(sock))
                self._arriving.add(task)
                self._strangers.append(task)
                task.add_done_callback(self._arrived)
        finally:
            if looking is not None:
                looking.cancel()
            for task in self._arriving:
                task.cancel()
            for session in list(self._sessions.values()):
                session.link.close("the worker is ending")
                session.end()

    async def _accept(self, listener: socket.socket) -> tuple[socket.socket, object]:
        while True:
            try:
                return await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:  # one connection was gone already, or there are no descriptors left for now
                log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(0.1)

    async def _receive(self, sock: socket.socket) -> None:
        """Find out who has come; what does not know the token is closed."""
        try:
            tcp.prepare(sock)
            hello = await handshake.receive(sock, self._key, self.worker_id)
            self._known(asyncio.current_task())
            if hello.kind == "control" and self._leaving:
                sock.close()
            elif hello.kind == "control":
                await self._begin(sock)
            elif hello.session in self._sessions and self._sessions[hello.session].park(hello.number, sock):
                pass
            else:
                sock.close()
        except handshake.Refused as error:
            log.warning("a connection is refused: %s", error.message)
            sock.close()
        except (OSError, TimeoutError):
            sock.close()
        except BaseException:
            sock.close()
            raise

    def _known(self, task: asyncio.Task[None] | None) -> None:
        if task in self._strangers:
            self._strangers.remove(task)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._known(task)
        self._arriving.discard(task)

    async def _begin(self, sock: socket.socket) -> None:
        session = Session(secrets.token_hex(16), self._launcher, self.machine)
        self._sessions[session.id] = session
        session.link.lost.add_done_callback(lambda lost: self._ended(session, lost.result()))
        try:
            await session.open(sock)
        except BaseException:
            session.link.close()
            raise
        self.changed.set()
        log.info("a gateway is connected")

    def _ended(self, session: Session, how: str) -> None:
        self._sessions.pop(session.id, None)
        session.end()
        self.changed.set()
        log.info("the gateway %s; its workers here are ended", how)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(GPUS_S)
            self._gpus = await asyncio.to_thread(machine.look_at_gpus)


class Start(msgspec.Struct, frozen=True):
    """What an agent that is a process of its own reads from its standard input, as one line of JSON."""

    worker_id: str
    token: str
    host: str
    port: int = 0
    entry: str = CHOSEN
    preload: tuple[str, ...] = PRELOAD


def main() -> int:
    """Run an agent until standard input ends; the first line of the output tells its port."""
    prctl.die_with_parent()
    prctl.set_name("sensorium-node")
    start = msgspec.json.decode(sys.stdin.readline(), type=Start)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Ends by itself if it is not killed: whoever started it holds the other end.
    threading.Thread(target=_end_with_input, daemon=True).start()
    launcher = Launcher(start.entry, start.preload)
    launcher.start()
    with contextlib.closing(launcher), socket.create_server((start.host, start.port)) as listener:
        print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
        asyncio.run(_serve(start, launcher, listener))
    return 0


async def _serve(start: Start, launcher: Launcher, listener: socket.socket) -> None:
    await Agent(start.worker_id, token.key_of(start.token), launcher).serve(listener)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
