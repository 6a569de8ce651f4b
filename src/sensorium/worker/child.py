"""A worker process as the gateway, its parent, sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

_POLL_S = 0.1


class Child:
    """One adopted process. Call from the event loop.

    `exited` is done when the process has ended; its result says how: "was killed by signal 9 (SIGKILL)".
    """

    node = ""  # this machine
    leaving = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch()

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended. Until then its process id cannot belong to another."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self, timeout_s: float) -> str | None:
        """Return how it ended, or None if it still runs after `timeout_s`."""
        await asyncio.wait([self.exited], timeout=timeout_s)
        return self.exited.result() if self.exited.done() else None

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()

        def poll() -> None:
            if not self._reap():
                loop.call_later(_POLL_S, poll)

        if sys.platform != "linux":
            loop.call_soon(poll)
            return
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._reap()
            return

        def readable() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            poll()  # one that ended within its first instants is handed on to us a moment later

        loop.add_reader(fd, readable)

    def _reap(self) -> bool:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # another process's child: only whether it is there can be seen
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                self._end("ended")
                return True
            return False
        if pid == 0:
            return False
        self._end(_describe(os.waitstatus_to_exitcode(status)))
        return True

    def _end(self, how: str) -> None:
        if not self.exited.done():
            self.exited.set_result(how)


def _describe(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"was killed by signal {-code}"
