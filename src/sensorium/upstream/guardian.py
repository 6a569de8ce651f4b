"""Runs a program and everything it starts, and ends all of it when whoever asked for it is gone.

    python -I -S guardian.py LIFELINE STATUS FOLDER PROGRAM ARGUMENT...

It holds the reading end of a pipe, LIFELINE, whose other end only the worker has: however the worker ends, kill -9
included, the pipe does. It adopts orphans, so descendants that put themselves into groups and sessions of their own
are found too. What the program left below /tmp goes with FOLDER. The program's pid and how it ended are written to
STATUS. It imports nothing but the standard library: it stays as long as the program does.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLITE_S = 0.4  # between SIGTERM and SIGKILL: nobody waits for an answer any more
_TRACKER_S = 1.0  # how long multiprocessing's resource tracker may take to unlink shared memory, once all others ended
_STEP_S = 0.02


def main(arguments: list[str]) -> int:
    """Run, wait, clean up; return the program's own exit status."""
    lifeline, status = int(arguments[0]), int(arguments[1])
    folder, command = arguments[2], arguments[3:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (lifeline, status):
        os.set_inheritable(descriptor, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _become(command)
    os.write(status, f"pid {child}\n".encode())
    ended = _wait(child, lifeline)
    _end_all(child, polite=ended is None)
    shutil.rmtree(folder, ignore_errors=True)
    if ended is None:
        return 0
    code = os.waitstatus_to_exitcode(ended)
    os.write(status, f"ended {code}\n".encode())
    return code if code >= 0 else 128 - code


def _become(command: list[str]) -> None:
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should this guardian itself be killed
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
    finally:
        os._exit(127)


def _wait(child: int, lifeline: int) -> int | None:
    """Return the child's wait status, or None when the lifeline ended first."""
    pidfd = os.pidfd_open(child)
    while True:
        readable, _, _ = select.select([lifeline, pidfd], [], [])
        if pidfd in readable:
            return os.waitpid(child, 0)[1]
        if lifeline in readable and not os.read(lifeline, 64):
            return None


def _end_all(child: int, polite: bool) -> None:
    if polite:
        _signal([child], signal.SIGTERM)
        _until(lambda: not _descendants(), _POLITE_S)
    _until(lambda: _kill_others(), 5.0)
    _until(lambda: not _descendants(), _TRACKER_S)
    while left := _descendants():
        _signal(left, signal.SIGKILL)
        _reap()
        time.sleep(_STEP_S)


def _kill_others() -> bool:
    """Kill all but the resource tracker, which unlinks what the others leave; True when they are gone."""
    others = [pid for pid in _descendants() if b"resource_tracker" not in _read(pid, "cmdline")]
    _signal(others, signal.SIGKILL)
    return not others


def _descendants() -> list[int]:
    """All processes below this one; those that have ended are taken leave of on the way."""
    _reap()
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _read(int(entry.name), "stat").rpartition(b")")[2].split()
            if len(fields) > 1 and fields[0] not in (b"Z", b"X"):
                parents[int(entry.name)] = int(fields[1])
    found: list[int] = []
    level = {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += level
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a stopped process notices nothing but SIGKILL
        except ProcessLookupError:
            pass


def _until(condition, seconds: float) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(_STEP_S)


def _prctl(option: int, argument: int) -> None:
    ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
