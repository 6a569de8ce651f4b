"""The handlers that show models: what they can, where they are answered, and what state they are in."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sensorium.errors import ModelNotFound
from sensorium.protocol.model_status import status_body
from sensorium.protocol.models import model_card, model_list
from sensorium.protocol.registration import routing
from sensorium.registry.kept import shown
from sensorium.server.reply import json_response
from sensorium.server.routes import Gateway, gateway_of, served_name
from sensorium.types import ModelInfo, Outlook


async def models(request: Request) -> Response:
    """List the served models, in OpenAI's form (`data`) and that of the serverless service (`models`)."""
    gateway = gateway_of(request)
    names = gateway.pool.names()
    cards = []
    for name in names:
        with contextlib.suppress(ModelNotFound):  # removed since, while the files of another were read
            cards.append(await card(gateway, name))
    there = set(gateway.pool.names())
    cards = [found for found in cards if found["id"] in there]
    return json_response(model_list(cards, [routing_of(request, gateway, found["id"]) for found in cards]))


async def model(request: Request) -> Response:
    """Describe one served model: its card, its state, workers and memory, and what was registered."""
    gateway = gateway_of(request)
    name = served_name(request.path_params["alias"], gateway.pool)
    spec, status = gateway.registrar.spec(name), gateway.pool.status(name)
    described = await card(gateway, name)
    return json_response(
        {
            **status_body(status),
            **described,
            "engine": status.engine or described["engine"],  # the first also says what will run it
            "fit": status_body(await gateway.pool.fit(name)),
            "source": gateway.registrar.source(name),
            "registered": None if spec is None else shown(spec),
            "routing": routing_of(request, gateway, name),
        }
    )


async def card(gateway: Gateway, name: str) -> dict[str, Any]:
    """Return a model's entry in /v1/models."""
    pool, spec = gateway.pool, gateway.registrar.spec(name)
    known: ModelInfo | Outlook | None = pool.info(name)
    if known is None:
        known = await asyncio.to_thread(pool.outlook, name)  # reads a file
    created = int(spec.created) if spec and spec.created else gateway.created
    state = gateway.pool.status(name).state
    return model_card(name, known, gateway.settings.media, created, pool.adapter(name), pool.base(name), state)


def routing_of(request: Request, gateway: Gateway, name: str) -> dict[str, Any]:
    """Return where a model is answered: by this gateway, whichever process or machine has it."""
    spec, status = gateway.registrar.spec(name), gateway.pool.status(name)
    nodes = [replica.node for replica in status.replicas if replica.node]
    return routing(
        name,
        spec.model_name if spec else status.model or name,
        str(request.base_url).rstrip("/"),
        worker_id=nodes[0] if nodes else spec.needs.worker_id if spec else None,
        created=spec.created if spec else float(gateway.created),
        state=status.state,
    )
