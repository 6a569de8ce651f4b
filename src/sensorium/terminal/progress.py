"""How far loading is: a bar on a terminal, nothing elsewhere (the log has the milestones)."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class LoadProgress:
    """One bar, renamed from phase to phase. Calls may come from any thread."""

    def __init__(self, console: Console) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=console, transient=True)
            self._task = self._progress.add_task("starting", total=1.0)

    def __enter__(self) -> LoadProgress:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def show(self, model: str, phase: str, fraction: float) -> None:
        """Show that `phase` of loading `model` is done to `fraction` in 0..1."""
        with self._lock:
            if self._progress is not None:
                self._progress.update(self._task, description=f"{model}: {phase}", completed=fraction)

    def stop(self) -> None:
        """Take the bar away."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
                self._progress = None
