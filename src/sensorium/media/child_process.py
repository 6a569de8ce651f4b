"""A decoding child as its parent sees it: started, asked one thing at a time, and killed when in doubt."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sensorium.errors import SensoriumError
from sensorium.media.channel import LENGTH, READY, REASON_LIMIT, REFUSED
from sensorium.media.check import Rejected
from sensorium.settings import MediaLimits
from sensorium.types import Modality

Answer = TypeVar("Answer")

_START_TIMEOUT_S = 60.0  # of the interpreter, on a machine that may be busy loading weights
_ROOT = str(Path(__file__).parents[2])
# sys.path[0] would be the working directory, where a file named like a module could run in the child's place: -P.
_START = f"import sys; sys.path.append({_ROOT!r}); from sensorium.media.child import main; main()"
# The child gets no secrets: only what an interpreter needs to start.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV")
_ENVIRONMENT_PREFIXES = ("PYTHON", "LD_", "DYLD_")
# numpy's BLAS would start a thread per core for arithmetic that is not done here.
_FIXED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_LIMITS = (
    *("max_pixels", "max_aspect_ratio", "max_frame_pixels", "max_video_pixels", "max_video_s"),
    *("max_video_frames", "max_audio_s"),
)


class Lost(Exception):
    """The child ended, or has to be ended, while it worked on an item; the text says how."""


class ChildProcess:
    """One running child and the socket to it.

    Raises:
        SensoriumError: it did not start.
    """

    def __init__(self, kind: Modality, limits: MediaLimits) -> None:
        self._kind = kind
        self._timeout_s = limits.decode_timeout_s if kind == "image" else limits.decode_clip_timeout_s
        self._deadline = 0.0
        self._channel, theirs = socket.socketpair()
        arguments = {
            "descriptor": theirs.fileno(),
            "parent": os.getpid(),
            "kind": kind,
            "memory_bytes": limits.decode_memory_bytes,
            "timeout_s": self._timeout_s,
            **{name: value for name, value in msgspec.structs.asdict(limits).items() if name in _LIMITS},
        }
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, json.dumps(arguments)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={name: value for name, value in os.environ.items() if _needed(name)} | _FIXED,
                )
        except OSError:
            self._channel.close()
            raise SensoriumError(f"the {kind} decoder did not start: the system could not run it") from None
        try:
            self._deadline = time.monotonic() + _START_TIMEOUT_S
            self.receive(len(READY))
        except Lost as lost:
            self.kill()
            raise SensoriumError(f"the {kind} decoder did not start: it {lost}; the server's log says why") from None

    def ask(
        self, wanted: dict[str, Any], files: Sequence[bytes], read: Callable[[ChildProcess, bytes], Answer]
    ) -> Answer:
        """Send one request and return what `read` makes of the answer, whose first byte it is given.

        Raises:
            Rejected: where its cause is a Lost, the child has to be killed.
        """
        self._deadline = time.monotonic() + self._timeout_s
        text = json.dumps({**wanted, "lengths": [len(file) for file in files]}).encode()
        try:
            for part in (LENGTH.pack(len(text)) + text, *files):
                self._send(part)
            return read(self, self.kind_of_answer())
        except Lost as lost:
            raise Rejected(f"could not be decoded: its decoder {lost}") from lost

    def kind_of_answer(self) -> bytes:
        """Return the byte that says what comes next.

        Raises:
            Rejected: the child refuses the item.
            Lost: it has gone.
        """
        kind = bytes(self.receive(1))
        if kind == REFUSED:
            (num_bytes,) = LENGTH.unpack(self.receive(LENGTH.size))
            answer = self.receive(min(num_bytes, REASON_LIMIT))
            code, _, reason = answer.decode("utf-8", "replace").partition(":")
            raise Rejected(reason, code)
        return kind

    def receive(self, num_bytes: int) -> bytearray:
        """Return the next `num_bytes` of the answer.

        Raises:
            Lost: they did not come in time.
        """
        buffer = bytearray(num_bytes)
        self.receive_into(memoryview(buffer))
        return buffer

    def receive_into(self, view: memoryview) -> None:
        """Fill `view` with the next bytes of the answer.

        Raises:
            Lost: they did not come in time.
        """
        while view:
            with self._lost_at_deadline():
                count = self._channel.recv_into(view)
            if count == 0:
                raise Lost(self._how_it_ended())
            view = view[count:]

    def kill(self) -> None:
        """End the process; what it was doing is lost."""
        self.process.kill()
        self.process.wait()
        self._channel.close()

    def _send(self, data: bytes) -> None:
        with self._lost_at_deadline():
            self._channel.sendall(data)

    @contextlib.contextmanager
    def _lost_at_deadline(self) -> Iterator[None]:
        """Give the socket until the deadline; whatever goes wrong with it means that the child is lost."""
        self._channel.settimeout(max(self._deadline - time.monotonic(), 1e-6))
        try:
            yield
        except TimeoutError:
            raise Lost(f"took longer than {self._timeout_s:g} s") from None
        except OSError:
            raise Lost(self._how_it_ended()) from None

    def _how_it_ended(self) -> str:
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "stopped answering"
        if status == -signal.SIGXCPU:
            return "used too much processor time"
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _needed(name: str) -> bool:
    return name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
