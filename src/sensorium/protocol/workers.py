"""/workers: what node agents send, in the shapes of serverless_vllm's."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import ConfigDict


class RegisterWorkerBody(pydantic.BaseModel):
    """The body of POST /workers/register. The gateway dials `public_worker_url`, or else `worker_url`."""

    model_config = ConfigDict(extra="allow")

    worker_id: str
    worker_url: str
    public_worker_url: str | None = None
    gpu_info: dict[str, Any] | None = None


class HeartbeatBody(pydantic.BaseModel):
    """The body of POST /workers/{worker_id}/heartbeat. What it says is shown; what counts is the control connection."""

    model_config = ConfigDict(extra="allow")

    gpu_info: dict[str, Any] | None = None
    instances: dict[str, Any] | None = None
