"""What `sensorium models` prints: the table of models, and one model in full. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "ready": "green",
    "loading": "yellow",
    "downloading": "yellow",
    "draining": "yellow",
    "asleep": "cyan",
    "failed": "bold red",
}
_LONGEST_ERROR = 60
_NARROW = 60  # columns of a terminal; below, only what matters most is shown
_LESS = ("engine", "model", "unloads after")  # `show` has them


def models_table(models: Sequence[dict[str, Any]], now: float | None = None, *, width: int = 80) -> Table:
    """Return the table of `sensorium models list`; columns in which nothing would stand are left out.

    So are the less important ones where it would not fit into `width`.
    """
    now = time.time() if now is None else now
    rows = [
        {
            "alias": Text(str(model["id"]), "bold"),
            "state": Text(_state(model), _COLOURS.get(str(model["state"]), "dim")),
            "engine": Text(str(model.get("engine") or "")),
            "model": Text(str(model.get("model") or "")),
            "memory": Text(memory(model), justify="right"),
            "in use": Text(_in_use(model), justify="right"),
            "idle": Text(_idle(model, now), justify="right"),
            "unloads after": Text(_ttl(model), justify="right"),
            "last error": Text(_shortened(str(model.get("last_error") or "")), "red"),
        }
        for model in models
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    right = ("memory", "in use", "idle", "unloads after")
    names = [name for name in (rows[0] if rows else {}) if name == "alias" or any(row[name].plain for row in rows)]
    for name in names if width >= _NARROW else [name for name in names if name not in _LESS]:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(row[str(column.header)] for column in table.columns))
    return table


def model_page(model: dict[str, Any], now: float | None = None) -> Table:
    """Return everything about one model, a line each."""
    now = time.time() if now is None else now
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    replicas = model.get("replicas") or []
    phases = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in (model.get("phases") or {}).items())
    lines: dict[str, Any] = {
        "alias": model["id"],
        "state": _state(model),
        "model": model.get("model"),
        "engine": model.get("engine"),
        "adapter over": model.get("lora_of"),
        "from": model.get("source"),
        "context": model.get("max_model_len") and f"{model['max_model_len']} tokens",
        "takes": ", ".join(model.get("input_modalities") or ()),
        "memory": memory(model),
        "workers": ", ".join(_worker(replica) for replica in replicas),
        "in use": _in_use(model),
        "idle": _idle(model, now),
        "unloads after": _ttl(model),
        "loaded": model.get("num_loads") and f"{model['num_loads']} times, last in {model.get('load_s') or 0:.2f} s",
        "of that": phases,
        "deaths": model.get("num_deaths"),
        "tried again in": model.get("retry_in_s") and f"{model['retry_in_s']:.0f} s",
        "last error": model.get("last_error"),
    }
    for name, value in lines.items():
        if value:
            table.add_row(name, Text(str(value)))
    for name, value in (model.get("registered") or {}).items():
        if name not in ("alias", "model_path", "lora_of", "idle_ttl"):
            table.add_row(name, Text(str(value)))
    return table


def size(count: float) -> str:
    """Return a number of bytes as people read it: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def memory(model: dict[str, Any]) -> str:
    """Return what a model holds, and where; or what it is expected to take."""
    parts = [
        f"{size(model[name])}{suffix}"
        for name, suffix in (("host_bytes", ""), ("device_bytes", " GPU"))
        if model.get(name)
    ]
    if not parts and model.get("needed_bytes"):
        return f"({size(model['needed_bytes'])})"
    return " + ".join(parts)


def span(seconds: float) -> str:
    """Return a time as people read it: 42 s, 3 min, 2 h, 5 days."""
    for limit, step, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / step:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _state(model: dict[str, Any]) -> str:
    state = str(model["state"])
    if state in ("loading", "downloading") and model.get("phase"):
        return f"{model['phase']} {model.get('fraction') or 0:.0%}"
    return state


def _in_use(model: dict[str, Any]) -> str:
    running, waiting = model.get("in_flight") or 0, model.get("waiting") or 0
    return " + ".join(text for text in (str(running) if running else "", f"{waiting} wait" if waiting else "") if text)


def _idle(model: dict[str, Any], now: float) -> str:
    used_at = model.get("used_at")
    return span(max(0.0, now - used_at)) if used_at and not model.get("in_flight") else ""


def _ttl(model: dict[str, Any]) -> str:
    if model.get("pinned"):
        return "pinned"
    seconds = model.get("idle_ttl_s")
    if seconds is None:
        return ""
    return "never" if seconds < 0 else span(seconds)


def _worker(replica: dict[str, Any]) -> str:
    where = f" on {replica['node']}" if replica.get("node") else ""
    return f"process {replica.get('pid')}{where} ({replica['state']})"


def _shortened(text: str) -> str:
    first = text.partition("\n")[0]
    return first if len(first) <= _LONGEST_ERROR else first[: _LONGEST_ERROR - 1] + "…"
