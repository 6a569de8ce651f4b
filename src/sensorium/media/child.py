"""A decoding child: a small process that may be killed at any moment without loss.

It reads files from a socket and writes pixels or samples back, one item at a time, for as long as its parent lives. A
crash, a memory bomb or an endless loop in a decoder ends this process and nothing else. It is an interpreter of
its own, not a fork, so it shares no memory with the model and starts from a known small size.

There is one kind of child for each kind of media, and each imports only the decoders of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sensorium.media.channel import LENGTH, READY, REASON_LIMIT, REFUSED, receive
from sensorium.media.check import Rejected

_PR_SET_PDEATHSIG = 1
_CHANNEL = 3  # the socket's descriptor
# FFmpeg reads formats that name other files and addresses: with every descriptor in use, nothing can be opened.
_MAX_OPEN_FILES = {"image": 8, "video": _CHANNEL + 1, "audio": _CHANNEL + 1}
Answer = Callable[[socket.socket, dict[str, Any], Sequence[bytearray], dict[str, Any]], None]


def main() -> None:
    """Serve the socket named on the command line: a JSON object of descriptor, parent, kind and limits."""
    limits = json.loads(sys.argv[1])
    _die_with(limits["parent"])
    descriptor = limits["descriptor"]
    if descriptor != _CHANNEL:
        os.dup2(descriptor, _CHANNEL)
        os.close(descriptor)
    channel = socket.socket(fileno=_CHANNEL)
    # Everything that will ever be imported is imported here, before files are out of reach.
    answer: Answer = importlib.import_module(f"sensorium.media.answer_{limits['kind']}").answer
    _confine(limits["memory_bytes"], _MAX_OPEN_FILES[limits["kind"]])
    channel.sendall(READY)
    with contextlib.suppress(ConnectionError):
        while (request := _receive(channel)) is not None:
            wanted, files = request
            _allow_cpu(math.ceil(limits["timeout_s"]))
            try:
                answer(channel, wanted, files, limits)
            except Rejected as rejected:
                _refuse(channel, rejected.code, rejected.reason)
            except MemoryError:
                mib = limits["memory_bytes"] / (1 << 20)
                _refuse(channel, "media_too_large", f"needs more than {mib:.0f} MiB of memory to decode; send less")
            del request, files


def _refuse(channel: socket.socket, code: str, reason: str) -> None:
    text = f"{code}:{reason}".encode()[:REASON_LIMIT]
    channel.sendall(REFUSED + LENGTH.pack(len(text)) + text)


def _receive(channel: socket.socket) -> tuple[dict[str, Any], list[bytearray]] | None:
    """Return the next request and its files; None when the parent has closed its end."""
    prefix = receive(channel, LENGTH.size)
    text = None if prefix is None else receive(channel, LENGTH.unpack(prefix)[0])
    if text is None:
        return None
    wanted = json.loads(text)
    files = [receive(channel, length) for length in wanted["lengths"]]
    return None if None in files else (wanted, [file for file in files if file is not None])


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, even in the middle of an item (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes the socket when it is done
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _confine(memory_bytes: int, max_open_files: int) -> None:
    """Take away what decoding does not need: files to write, open files, core dumps, memory."""
    devnull = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(devnull, standard)
    os.close(devnull)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":  # elsewhere RLIMIT_AS is not enforced, and there is no /proc to read
        with open("/proc/self/statm", encoding="ascii") as statm:
            baseline = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (baseline + memory_bytes, baseline + memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_open_files, max_open_files))


def _allow_cpu(seconds: int) -> None:
    """Let the next item use this much processor time; the parent's clock is the usual end, this is the last one."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
