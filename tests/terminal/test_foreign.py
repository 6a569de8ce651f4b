"""Flags of other programs: named in one line, or refused by name, and never eaten."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from sensorium.cli import _main, cli
from sensorium.environment import UNUSED, VARIABLES
from sensorium.terminal import serve
from sensorium.terminal.arguments import normalise
from sensorium.terminal.foreign import SWIFT, VLLM, Foreign

COMMANDS = {"serve": ["serve"], "deploy": ["deploy", "--model_id_or_path", "org/model"]}


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "serve", lambda *arguments: 0)
    for name in (*UNUSED, *(name for row in VARIABLES for name in (row.name, *row.old))):
        monkeypatch.delenv(name, raising=False)


def run(line: list[str]) -> int:
    return _main(normalise(line))


def written(row: Foreign, value: str) -> list[str]:
    return [row.flag] if row.takes == "nothing" else [row.flag.replace("-", "_").replace("__", "--"), value]


@pytest.mark.parametrize(("command", "row"), [("serve", row) for row in VLLM] + [("deploy", row) for row in SWIFT])
def test_each_flag_is_named_or_refused(command: str, row: Foreign, capsys: pytest.CaptureFixture[str]) -> None:
    value = row.allowed[0].upper() if row.allowed else "anything"
    status = run([*COMMANDS[command], *written(row, value)])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert row.flag in said
    assert row.why in said
    if row.allowed == ():
        assert (status, said.startswith("sensorium: ")) == (2, True)
    else:
        assert (status, said.startswith("Without effect here: ")) == (0, True)


@pytest.mark.parametrize(
    ("command", "row"),
    [(command, row) for command, rows in (("serve", VLLM), ("deploy", SWIFT)) for row in rows if row.allowed],
)
def test_other_values_are_refused_with_the_right_ones(
    command: str, row: Foreign, capsys: pytest.CaptureFixture[str]
) -> None:
    assert row.allowed
    assert run([*COMMANDS[command], *written(row, "wrong")]) == 2
    said = capsys.readouterr().err
    assert all(value in said for value in (row.flag, "wrong", *row.allowed))


def test_all_are_named_in_one_line_variables_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:True")
    line = "serve --trust-remote-code --gpu_memory_utilization 0.9 --tensor-parallel-size=1 --swap-space 4 org/model"
    assert run(line.split()) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for name in (
        *("--trust-remote-code", "--gpu-memory-utilization 0.9", "--tensor-parallel-size 1", "--swap-space 4"),
        "PYTORCH_NPU_ALLOC_CONF",
    ):
        assert name in said


def test_what_has_an_effect_is_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    line = "serve --block-size 128 --gpu-memory-utilization 0.5 --device cuda:0 --max-num-seqs=256"
    assert run(line.split()) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [[], ["true"], ["false"], ["True"]])
def test_swifts_switches_take_a_value_or_none(value: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*COMMANDS["deploy"], "--verbose", *value, "--port", "9"]) == 0
    assert "--verbose" in capsys.readouterr().err


def test_vllms_switches_never_swallow_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda *arguments: calls.append(arguments) or 0)
    assert run(["serve", "--trust-remote-code", "org/model"]) == 0
    assert list(calls[0][0]) == ["org/model"]


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("serve --max-modellen 5", "--max-model-len"),
        ("serve --gpu_memory_utilisation 0.5", "--gpu-memory-utilization"),
        ("deploy --model_typ x", "--model-type"),
        ("deploy --ckpt_dirs x", "--ckpt-dir"),
        ("start-server --checkpoint-pat x", "--checkpoint-path"),
    ],
)
def test_unknown_flags_get_the_nearest(line: str, nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    assert f"Did you mean {nearest}?" in capsys.readouterr().err


def test_foreign_flags_are_not_in_the_help() -> None:
    help_text = CliRunner().invoke(cli, ["deploy", "--help"]).output
    assert "--model-type" in help_text
    assert not any(f"{row.flag} " in help_text for row in (*VLLM, *SWIFT))


def test_no_flag_is_both_served_and_foreign() -> None:
    for name in ("serve", "deploy", "start-server"):
        flags = [
            flag for option in cli.commands[name].params for flag in option.opts if isinstance(option, click.Option)
        ]
        assert len(flags) == len(set(flags)), name
