"""The operator's system message, put before conversations that bring none."""

from __future__ import annotations

import msgspec

from sensorium.types import Message, Request, Text


def with_system(request: Request, system: str | None) -> Request:
    """Return the request with `system` as its first message, if it is a conversation that has no system message."""
    messages = request.messages
    if system is None or messages is None or any(message.role == "system" for message in messages):
        return request
    return msgspec.structs.replace(request, messages=(Message("system", (Text(system),)), *messages))
