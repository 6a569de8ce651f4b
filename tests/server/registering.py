"""What the tests of the registry's routes share."""

from __future__ import annotations

from typing import Any

import httpx

from tests.server.serving import Served

EYES = {"alias": "eyes", "model_name": "tiny-vl"}


def register(server: Served, body: dict[str, Any] | None = None, query: str = "", **more: Any) -> httpx.Response:
    """Register `eyes`, with these fields."""
    return server.post(f"/v1/models/register{query}", {**EYES, **(body or {})}, **more)


def state(server: Served, alias: str = "eyes") -> str:
    """Return a model's state."""
    return str(httpx.get(f"{server.url}/v1/models/{alias}").json()["state"])
