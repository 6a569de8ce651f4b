"""What `sensorium models list` prints, by where it goes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from sensorium.cli import _main
from sensorium.terminal.models_table import models_table

LONG = "organisation/a-model-with-a-name-that-is-longer-than-a-terminal-has-columns-7B-Instruct"


def row(alias: str, model: str) -> dict[str, Any]:
    return {"id": alias, "state": "unloaded", "engine": "native", "model": model, "needed_bytes": 1 << 28, "used_at": 1}


def test_a_narrow_terminal_shows_less_and_breaks_no_state() -> None:
    console = Console(width=40, file=io.StringIO())
    console.print(models_table([row("eyes", LONG)], now=200.0, width=40))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert [word for word in ("eyes", "unloaded", "(256 MiB)", "3 min") if word not in shown] == []
    assert "native" not in shown


def test_a_program_that_reads_gets_one_line_for_each_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sensorium.terminal.models._do", lambda *_, **__: [row("eyes", LONG)])
    assert _main(["models", "list"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "eyes" in line and LONG in line]
