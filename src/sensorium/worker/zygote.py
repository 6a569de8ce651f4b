"""The process that workers are forked from: `python -m sensorium.worker.zygote FD ENTRY [MODULE ...]`.

It imports what a worker needs (torch alone takes over a second) and then waits. A line on the control socket
`FD`, with a worker's own socket attached, makes it fork; the copy is running worker code some 10 ms later.

Nothing here may run a torch operation or start a thread: a fork copies neither OpenMP's pool nor threads.

The fork is double, and the process in the middle ends at once. As the gateway adopts orphans, it becomes the
worker's parent itself: it learns the exit status from the kernel, the kernel ends the worker when the gateway
ends (even a stopped one), and a zygote that dies takes nobody with it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections import deque
from typing import NoReturn

from sensorium.worker import prctl, process

_ADOPTION_S = 1.0


def main(arguments: list[str]) -> int:
    """Import, then fork a worker for each request until the control socket closes."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    entry, modules = arguments[1], arguments[2:]
    gateway = os.getppid()
    _belong_to(gateway, "sensorium-zygote")
    for module in modules:
        importlib.import_module(module)
    process.find_loader(entry)
    gc.collect()
    gc.freeze()  # what is alive now is never collected, so its memory stays shared with the workers

    pending = b""
    sockets: deque[int] = deque()
    while True:
        data, fds, _, _ = socket.recv_fds(control, 1 << 16, 16)
        if not data:
            return 0
        sockets.extend(fds)
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            _fork(control, sockets.popleft(), str(request["id"]), request["variables"], entry, gateway)


def _fork(
    control: socket.socket, fd: int, request_id: str, variables: dict[str, str], entry: str, gateway: int
) -> None:
    middle = os.fork()
    if middle == 0:
        os.environ.update(variables)  # read by CUDA when it is first used, which it has not been
        _middle(control, fd, request_id, entry, gateway)
    os.close(fd)
    _, status = os.waitpid(middle, 0)
    if status:
        control.sendall(json.dumps({"id": request_id, "error": "fork failed"}).encode() + b"\n")


def _middle(control: socket.socket, fd: int, request_id: str, entry: str, gateway: int) -> NoReturn:
    try:
        worker = os.fork()
    except OSError:
        os._exit(1)
    if worker:
        control.sendall(json.dumps({"id": request_id, "pid": worker}).encode() + b"\n")
        os._exit(0)
    status = 1
    try:
        control.close()
        os.setsid()
        _wait_for_adoption(gateway)
        _belong_to(gateway, "sensorium-worker")
        status = process.main(socket.socket(fileno=fd), process.find_loader(entry))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait_for_adoption(gateway: int) -> None:
    # Where adoption is not to be had (not Linux) the socket's end alone tells that the gateway is gone.
    deadline = time.monotonic() + _ADOPTION_S
    while os.getppid() != gateway and sys.platform == "linux" and time.monotonic() < deadline:
        time.sleep(0.0005)


def _belong_to(gateway: int, name: str) -> None:
    """Live exactly as long as the gateway, and let only it decide when to stop."""
    if os.getppid() == gateway:
        prctl.die_with_parent()
        if os.getppid() != gateway:  # it ended just before the call above
            os._exit(1)
    prctl.set_name(name)
    # Ctrl-C and a service manager's SIGTERM reach the whole group; the gateway then drains, so workers must stay.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
