"""Process controls of Linux that Python has no call for. On other systems they do nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as the thread that is its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, instead of process 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


class Orphans:
    """Ends the zombies among adopted processes that nobody waits for."""

    def __init__(self) -> None:
        self._seen: int | None = None

    def reap(self) -> None:
        """Call about once a second: one that is there twice in a row is nobody's; others see theirs end at once."""
        if not hasattr(os, "waitid"):
            return
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                found = None
            pid = found.si_pid if found else None
            if pid is None or pid != self._seen:
                self._seen = pid
                return
            with contextlib.suppress(ChildProcessError):  # who waits for it on another thread was quicker
                os.waitpid(pid, os.WNOHANG)
            self._seen = None


def set_name(name: str) -> None:
    """Set the name that `top` and `ps -o comm` show; the kernel keeps 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]))


def _prctl(option: int, argument: object) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)
