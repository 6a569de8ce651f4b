"""Run a program, watch the memory of its whole process tree, and read the JSON lines it prints."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from engines import Program

SAMPLE_S = 0.3  # seconds between two looks at the memory
STOP_S = 20.0  # how long a program may take to end after SIGTERM


class Failed(Exception):
    """A program did not do its work; the message says which, how it ended and its last lines."""


class Running:
    """A started program. As a context manager it is ended, children included, on the way out.

    Its output goes to `log`; `peak_bytes` is the largest sum of resident memory seen over its process tree.

    Raises:
        Failed: the command cannot be started.
    """

    def __init__(self, program: Program, arguments: list[str], log: Path) -> None:
        self.name = program.name
        self.log = log
        self.peak_bytes = 0
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.started_at = time.time()
            try:
                self._process = subprocess.Popen(
                    program.command + arguments,
                    env=os.environ | program.env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise Failed(f"{program.name} cannot be started: {program.command[0]}: {error.strerror}") from None
        self._tree: set[psutil.Process] = set()  # every process ever seen below it
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._look()
        if self.alive():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        for process in self._tree:  # whatever is left; psutil never signals a stranger with a reused id
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of the program itself."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the program itself still runs."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> None:
        """Wait for a good end.

        Raises:
            Failed: it ended with another status than 0, or not within `timeout_s`.
        """
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {timeout_s:.0f} s") from None
        if status != 0:
            raise self.failure(f"ended with status {status}")

    def failure(self, what: str) -> Failed:
        """An error that carries the end of the log."""
        lines = [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return Failed(f"{self.name} {what}; the end of {self.log.name}:\n  " + "\n  ".join(lines[-6:]))

    def told(self) -> list[dict[str, Any]]:
        """The JSON lines printed so far with `measure.tell`."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"what": ') and line.endswith("}")]

    def _watch(self) -> None:
        while self.alive():
            self._look()
            time.sleep(SAMPLE_S)

    def _look(self) -> None:
        tree = process_tree(self._process.pid)
        self._tree = self._tree | set(tree)  # not in place: the other thread may be going through it
        self.peak_bytes = max(self.peak_bytes, resident_bytes(tree))


def process_tree(pid: int) -> list[psutil.Process]:
    """Process `pid` and all its descendants; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident_bytes(processes: list[psutil.Process]) -> int:
    """Sum of their resident memory; pages shared between them count for each."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total
