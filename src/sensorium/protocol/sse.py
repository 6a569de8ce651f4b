"""Server-sent events: one `data:` line and a blank line each, nothing else.

No comments, no `event:` lines: swift's client asserts that every line that is not blank starts with `data:`.
After a success `DONE` ends the stream; after an error the error event is the last.
"""

from __future__ import annotations

import msgspec

from sensorium.errors import SensoriumError
from sensorium.protocol.errors import error_body

DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def event(value: object) -> bytes:
    """Encode one event. JSON escapes line ends, so it is always one line."""
    return b"data: " + _encoder.encode(value) + b"\n\n"


def error_event(error: SensoriumError) -> bytes:
    """Encode an error that struck after the first byte."""
    return event(error_body(error))
