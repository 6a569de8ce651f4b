"""What the server notes about one HTTP request. It lies in the ASGI scope under RECORD."""

from __future__ import annotations

import secrets
import time
from collections.abc import MutableMapping
from typing import Any, cast

RECORD = "sensorium.record"


class Record:
    """One HTTP request, from its first byte to its line in the log."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.start_s = time.perf_counter()
        self.status = 0  # 0: no response has begun
        self.model = ""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.ttft_s: float | None = None
        self.admin = False  # came with an admin key, or, where there are none, with a key
        self.cache_salt = ""  # follows from the API key
        self.stopped: Exception | None = None  # why the request's task was cancelled


def record_of(scope: MutableMapping[str, Any]) -> Record:
    """Return the scope's record."""
    return cast(Record, scope[RECORD])
