"""docs/cli.md, written from the tables that the commands are made of: `python -m sensorium.terminal.reference`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import click

from sensorium.cli import cli
from sensorium.environment import STANDARD, UNUSED, VARIABLES
from sensorium.registry.model_types import MODEL_TYPES
from sensorium.terminal.foreign import SWIFT, VLLM, Foreign
from sensorium.terminal.models import models
from sensorium.terminal.start_server import MODEL_TYPES as RTP_TYPES

_HEAD = """\
# The command line

This page is written from the code's own tables by `python -m sensorium.terminal.reference > docs/cli.md`; a test
compares the two. Every flag may be written with dashes or underscores, with a space or `=` before its value. A wrong
value ends the start with the right ones, an unknown flag with the nearest.

| to start a server | write |
|---|---|
| `vllm serve MODEL ...` | `sensorium serve MODEL ...` |
| `python -m vllm.entrypoints.openai.api_server ...` | `python -m sensorium.entrypoints.openai.api_server ...` |
| the same, shorter | `python -m sensorium.api_server ...` |
| `swift deploy ...` (ms-swift 2.x) | `sensorium deploy ...` |
| `python3 -m maga_transformer.start_server` (rtp-llm) | `python3 -m sensorium.start_server` |

All of them listen on 127.0.0.1 unless `--host` says otherwise; the programs they replace listen on every address.
"""
_KINDS = {
    "integer": "whole number",
    "integer range": "whole number",
    "float": "number",
    "float range": "number",
    "boolean": "true or false",
}
_COMMANDS = (
    ("serve", "sensorium serve, python -m sensorium.api_server"),
    ("deploy", "sensorium deploy"),
    ("start-server", "python -m sensorium.start_server"),
    ("run", "sensorium run"),
    ("chat", "sensorium chat"),
    ("worker", "sensorium worker, python -m sensorium.worker.service"),
)

_MODELS = models.commands


def reference() -> str:
    """Return docs/cli.md."""
    shared = {flag for flag, *_ in _flags("serve")}
    sections = [_HEAD]
    for name, title in _COMMANDS:
        rows = [row for row in _flags(name) if name in ("serve", "worker") or row[0] not in shared]
        more = (
            ""
            if name in ("serve", "worker")
            else "\nAll of `sensorium serve` too.\n"
            if name in ("deploy", "start-server")
            else ("\nOf `sensorium serve`, also those about the model.\n")
        )
        sections.append(f"## {title}\n{more}\n" + _table(("flag", "value", "default", "what"), rows))
    sections.append(
        "## sensorium models\n\n"
        + _table(
            ("command", "what"), [(f"`{name}`", command.get_short_help_str(100)) for name, command in _MODELS.items()]
        )
        + "\nOf `register`, and, the last four, of all:\n\n"
        + _table(("flag", "value", "default", "what"), _flags("register", _MODELS))
    )
    sections.append(
        "## Model types of `sensorium deploy`\n\n"
        + _table(
            ("model type", "on ModelScope", "on Hugging Face (`USE_HF=1`)"),
            [(f"`{name}`", f"`{row.modelscope}`", f"`{row.huggingface}`") for name, row in MODEL_TYPES.items()],
        )
    )
    sections.append(
        "## Model types of `sensorium.start_server`\n\n"
        + _table(
            ("MODEL_TYPE", "architecture in config.json"),
            [(f"`{name}`", ", ".join(f"`{one}`" for one in row)) for name, row in RTP_TYPES.items()],
        )
    )
    sections.append("## Flags of vLLM without effect, or refused\n\n" + _foreign(VLLM))
    sections.append("## Flags of ms-swift without effect, or refused\n\n" + _foreign(SWIFT))
    sections.append(
        "## Environment variables\n\n"
        + _table(
            ("variable", "also read as", "what"),
            [(f"`{row.name}`", ", ".join(f"`{name}`" for name in row.old), row.about) for row in VARIABLES]
            + [(", ".join(f"`{name}`" for name in names.split(", ")), "", about) for names, about in STANDARD],
        )
        + "\nWithout effect: "
        + ", ".join(f"`{name}` ({why})" for name, why in UNUSED.items())
        + ".\n"
    )
    return "\n".join(sections)


def _flags(command: str, group: Mapping[str, click.Command] | None = None) -> list[tuple[str, str, str, str]]:
    """Return flag, kind of value, default and help of each option that is not hidden."""
    rows = []
    for option in (group or cli.commands)[command].params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
        kind = option.make_metavar(click.Context(cli)).strip("[]<>").lower().replace("|", " or ")
        shown = isinstance(option.default, str | int | float) and not (option.is_flag and not option.default)
        value = "" if option.is_flag else _KINDS.get(kind, kind)
        rows.append((flags, value, str(option.default) if shown else "", option.help or ""))
    return rows


def _foreign(rows: Iterable[Foreign]) -> str:
    def taken(row: Foreign) -> str:
        if row.allowed is None:
            return "no effect"
        return f"only {' or '.join(f'`{value}`' for value in row.allowed)}" if row.allowed else "refused"

    return _table(("flag", "here", "why"), [(f"`{row.flag}`", taken(row), row.why) for row in rows])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
