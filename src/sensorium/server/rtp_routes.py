"""The handler of rtp-llm's own endpoint."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sensorium import way
from sensorium.protocol.rtp import RawBody, parse_raw
from sensorium.protocol.rtp_answer import RawAnswer
from sensorium.server.answering import Answering
from sensorium.server.merge import merged
from sensorium.server.record import record_of
from sensorium.server.routes import body_of, gateway_of, served_name
from sensorium.server.waiting import wait_s


async def raw(request: Request) -> Response:
    """Continue a raw prompt, with pictures by `urls` or inline, in rtp-llm's form."""
    gateway = gateway_of(request)
    body = await body_of(request, RawBody)
    model, record = served_name(body.model, gateway.pool), record_of(request.scope)
    request_id = f"raw-{record.id}"
    wanted = parse_raw(body, model, request_id, record.cache_salt)
    answer = RawAnswer(request_id, model, wanted)
    prompts = [msgspec.structs.replace(parsed, wait_s=wait_s(request)) for parsed in wanted.prompts]
    streams = [way.stream(parsed, gateway.pool, gateway.fetch, gateway.settings.media) for parsed in prompts]
    events = streams[0] if len(streams) == 1 else merged(streams, wanted.prompts[0].request.sampling.n)
    return Answering(events, answer, wanted.stream, gateway.metrics)
