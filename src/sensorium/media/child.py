"""The decoding child: a small process that may be killed at any moment without loss.

It reads pictures from a socket and writes pixels back, one item at a time, for as long as its parent lives. A
crash, a memory bomb or an endless loop in a decoder ends this process and nothing else. It is an interpreter of
its own, not a fork, so it shares no memory with the model and starts from a known small size.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys

from PIL import Image

from sensorium.media.channel import LENGTH, PIXELS, READY, REASON, REFUSED, SIZE, receive
from sensorium.media.check import Rejected
from sensorium.media.image import decode_rgb

_PR_SET_PDEATHSIG = 1
_MAX_OPEN_FILES = 8
_BAND_BYTES = 1 << 20  # pixels are packed and sent in bands, so that the parent reads one while the next is made


def main() -> None:
    """Serve the socket given on the command line: descriptor, parent, memory, seconds, pixels, aspect ratio."""
    descriptor, parent, memory_bytes, cpu_s, max_pixels, max_aspect_ratio = map(int, sys.argv[1:])
    _die_with(parent)
    channel = socket.socket(fileno=descriptor)
    _confine(memory_bytes)
    channel.sendall(READY)
    with contextlib.suppress(ConnectionError):
        while (data := _receive(channel)) is not None:
            _allow_cpu(cpu_s)
            _answer(channel, data, max_pixels, max_aspect_ratio, memory_bytes)
            del data


def _answer(channel: socket.socket, data: bytearray, max_pixels: int, max_aspect_ratio: int, memory: int) -> None:
    try:
        image = decode_rgb(data, max_pixels, max_aspect_ratio)
    except Rejected as rejected:
        _refuse(channel, rejected.code, rejected.reason)
    except MemoryError:
        reason = f"needs more than {memory / (1 << 20):.0f} MiB of memory to decode; send a smaller picture"
        _refuse(channel, "media_too_large", reason)
    else:
        _send(channel, image)


def _refuse(channel: socket.socket, code: str, reason: str) -> None:
    text = f"{code}:{reason}".encode()
    channel.sendall(REFUSED + REASON.pack(len(text)) + text)


def _send(channel: socket.socket, image: Image.Image) -> None:
    width, height = image.size
    channel.sendall(PIXELS + SIZE.pack(height, width))
    num_rows = max(1, _BAND_BYTES // (3 * width))
    for top in range(0, height, num_rows):
        band = image if num_rows >= height else image.crop((0, top, width, min(top + num_rows, height)))
        channel.sendall(band.tobytes())


def _receive(channel: socket.socket) -> bytearray | None:
    """Return the next file; None when the parent has closed its end."""
    prefix = receive(channel, LENGTH.size)
    return None if prefix is None else receive(channel, LENGTH.unpack(prefix)[0])


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, even in the middle of a picture (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes the socket when it is done
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _confine(memory_bytes: int) -> None:
    """Take away what decoding does not need: files to write, open files, core dumps, memory."""
    devnull = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(devnull, standard)
    os.close(devnull)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    if sys.platform == "linux":  # elsewhere RLIMIT_AS is not enforced, and there is no /proc to read
        with open("/proc/self/statm", encoding="ascii") as statm:
            baseline = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (baseline + memory_bytes, baseline + memory_bytes))


def _allow_cpu(seconds: int) -> None:
    """Let the next item use this much processor time; the parent's clock is the usual end, this is the last one."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
