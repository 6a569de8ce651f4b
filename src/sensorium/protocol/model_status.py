"""The state of a model on the wire, and the events of its changes."""

from __future__ import annotations

from typing import Any

import msgspec


def status_body(status: msgspec.Struct) -> dict[str, Any]:
    """Return all fields of a ModelStatus, those at their defaults too: a reader need not know the defaults."""
    return {name: _plain(value) for name, value in msgspec.structs.asdict(status).items()}


def change_event(kind: str, alias: str, status: msgspec.Struct | None) -> dict[str, Any]:
    """Return an event of /v1/models/events: `kind` is snapshot, changed, removed or alive."""
    body = None if status is None else status_body(status)
    return {"object": "model.event", "event": kind, "alias": alias, "status": body}


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return status_body(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
