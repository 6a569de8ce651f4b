"""A program that belongs to this process: it ends with it, and so does all that it starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

_GUARDIAN = Path(__file__).with_name("guardian.py")
_SOCKET_BYTES = 100  # of a Unix socket's path the kernel takes 107


class Guarded:
    """A program below a guardian; see `guardian.py`.

    Attributes:
        folder: a folder of its own, which nobody else can look into; it is gone when the program is.
        pid: of the program; None until the guardian has told.
    """

    def __init__(self, prefix: str) -> None:
        folder = tempfile.mkdtemp(prefix=prefix)
        if len(folder) > _SOCKET_BYTES - 20:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix=prefix, dir="/tmp")
        self.folder = Path(folder)
        self.pid: int | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._lock = threading.Lock()
        self._closing = False
        self._seen: list[psutil.Process] = []

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        on_end: Callable[[str], None],
    ) -> None:
        """Start the program.

        Args:
            command: its first entry is a path.
            on_line: called with each line of its output, from a thread.
            on_end: called once, from a thread, when it has ended by itself: "was killed by signal 9".
        """
        lifeline, self._lifeline = os.pipe()
        status, told = os.pipe()
        try:
            self._guardian = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(_GUARDIAN)),
                    *(str(lifeline), str(told), str(self.folder), *command),
                ],
                pass_fds=(lifeline, told),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        finally:
            os.close(lifeline)
            os.close(told)
        threading.Thread(target=self._read, args=(status, on_line, on_end), name="output", daemon=True).start()

    def close(self, timeout_s: float) -> None:
        """End the program and all that it started; wait for at most `timeout_s`. More than once is fine."""
        self._closing = True
        with self._lock:  # whoever else closes it now must not close a stranger's
            lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)
        if self._guardian is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        with contextlib.suppress(subprocess.TimeoutExpired):  # then it goes on without us
            self._guardian.wait(timeout_s)

    def processes(self) -> list[psutil.Process]:
        """Return the program and all that it started, as far as they run."""
        try:
            program = psutil.Process(self.pid) if self.pid is not None else None
            self._seen = [program, *program.children(recursive=True)] if program is not None else []
        except psutil.Error:
            return []
        return self._seen

    def _read(self, status: int, on_line: Callable[[str], None], on_end: Callable[[str], None]) -> None:
        assert self._guardian is not None
        assert self._guardian.stdout is not None
        with os.fdopen(status) as told:
            self.pid = int(told.readline().removeprefix("pid ") or 0) or None
            threading.Thread(target=self._follow, args=(on_end,), name="guardian", daemon=True).start()
            with self._guardian.stdout as output:
                for line in output:
                    on_line(line.decode("utf-8", "replace").rstrip())
            last = told.read().split()
        if last[:1] == ["ended"] and not self._closing:
            on_end(_how(int(last[1])))

    def _follow(self, on_end: Callable[[str], None]) -> None:
        """Should the guardian itself be killed, end what it can no longer end."""
        assert self._guardian is not None
        if self._guardian.wait() >= 0 or self._closing:
            return
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        for process in self._seen:  # psutil never signals a stranger with a reused id
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        on_end("lost its guardian")


def _how(code: int) -> str:
    return f"exited with status {code}" if code >= 0 else f"was killed by signal {-code}"
