"""The handlers: read, parse, hand over, render."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, field
from typing import TypeVar, cast

import msgspec
import pydantic
from starlette.requests import Request
from starlette.responses import Response

from sensorium import __version__, way
from sensorium.errors import InvalidRequest, ModelNotFound
from sensorium.protocol.body import parse_body
from sensorium.protocol.chat import ChatBody, parse_chat
from sensorium.protocol.chat_answer import ChatAnswer
from sensorium.protocol.completions import CompletionBody, parse_completion
from sensorium.protocol.completions_answer import CompletionAnswer
from sensorium.protocol.fields import SamplingFields
from sensorium.protocol.tokens import DetokenizeBody, TokenizeBody, parse_tokenize
from sensorium.protocol.usage import media_details
from sensorium.registry.interface import Pool
from sensorium.registry.registrar import Registrar
from sensorium.server.answering import Answering
from sensorium.server.gate import Gate
from sensorium.server.merge import merged
from sensorium.server.read import read_body
from sensorium.server.record import record_of
from sensorium.server.reply import json_response
from sensorium.server.telemetry import Metrics
from sensorium.server.waiting import wait_s
from sensorium.settings import ServerSettings

Body = TypeVar("Body", bound=pydantic.BaseModel)


@dataclass
class Gateway:
    """What the handlers share; `app.state.gateway`."""

    pool: Pool
    settings: ServerSettings
    fetch: way.Fetch
    gate: Gate
    metrics: Metrics
    registrar: Registrar
    watchers: int = 0  # clients that are told of models' changes
    loading: bool = False  # a model is being loaded before the server calls itself ready
    created: int = field(default_factory=lambda: int(time.time()))


def gateway_of(request: Request) -> Gateway:
    """Return the app's gateway."""
    return cast(Gateway, request.app.state.gateway)


async def chat_completions(request: Request) -> Response:
    """Answer a conversation, which may hold pictures."""
    gateway = gateway_of(request)
    body = await body_of(request, ChatBody)
    model, record = served_name(body.model, gateway.pool), record_of(request.scope)
    trusted = gateway.settings.trust_request_chat_template
    parsed = parse_chat(body, model, f"chatcmpl-{record.id}", record.cache_salt, trust_template=trusted)
    usage, running = _usage(body)
    sampling = parsed.request.sampling
    answer = ChatAnswer(
        parsed.request.id,
        model,
        int(time.time()),
        sampling.n,
        sampling.logprobs is not None,
        usage,
        running,
        parsed.echo,
    )
    parsed = msgspec.structs.replace(parsed, wait_s=wait_s(request))
    events = way.stream(parsed, gateway.pool, gateway.fetch, gateway.settings.media)
    return Answering(events, answer, bool(body.stream), gateway.metrics)


async def completions(request: Request) -> Response:
    """Continue one prompt or several; a prompt is text or token ids."""
    gateway = gateway_of(request)
    body = await body_of(request, CompletionBody)
    model, record = served_name(body.model, gateway.pool), record_of(request.scope)
    prompts = parse_completion(body, model, f"cmpl-{record.id}", record.cache_salt)
    prompts = [msgspec.structs.replace(parsed, wait_s=wait_s(request)) for parsed in prompts]
    usage, running = _usage(body)
    sampling = prompts[0].request.sampling
    answer = CompletionAnswer(
        f"cmpl-{record.id}",
        model,
        int(time.time()),
        sampling.n,
        len(prompts),
        sampling.logprobs is not None,
        usage,
        running,
        bool(body.echo),
    )
    streams = [way.stream(parsed, gateway.pool, gateway.fetch, gateway.settings.media) for parsed in prompts]
    events = streams[0] if len(streams) == 1 else merged(streams, sampling.n)
    return Answering(events, answer, bool(body.stream), gateway.metrics)


async def tokenize(request: Request) -> Response:
    """Count and list the tokens of a prompt or a conversation, and of each media item in it."""
    gateway = gateway_of(request)
    body = await body_of(request, TokenizeBody)
    record = record_of(request.scope)
    record.model = served_name(body.model, gateway.pool)
    trusted = gateway.settings.trust_request_chat_template
    parsed = parse_tokenize(body, record.model, f"tok-{record.id}", trust_template=trusted)
    async with way.held(parsed.model, gateway.pool, wait_s(request)) as handle:
        prepared = await way.prepare(parsed, handle, gateway.fetch, gateway.settings.media)
        tokens = await handle.tokenize(prepared)
        answer: dict[str, object] = {
            "count": len(tokens.token_ids),
            "max_model_len": handle.info.max_model_len,
            "tokens": tokens.token_ids,
            "token_strs": tokens.token_strings if body.return_token_strs else None,
        }
        if tokens.media:  # vLLM's shape otherwise
            answer["media"] = [media_details(use) for use in tokens.media]
        return json_response(answer)


async def detokenize(request: Request) -> Response:
    """Turn token ids into text."""
    gateway = gateway_of(request)
    body = await body_of(request, DetokenizeBody)
    record = record_of(request.scope)
    record.model = served_name(body.model, gateway.pool)
    async with way.held(record.model, gateway.pool, wait_s(request)) as handle:
        tokens = await handle.detokenize(body.tokens)
    return json_response({"prompt": tokens.text})


async def health(request: Request) -> Response:
    """Say that the process lives. Says nothing about its models: see /ready."""
    return json_response({"status": "ok"})


async def ready(request: Request) -> Response:
    """Say whether requests will be answered now: 200, or 503 with the reason."""
    gateway = gateway_of(request)
    fine, reason = gateway.pool.ready()
    if gateway.gate.draining:
        fine, reason = False, "the server is shutting down"
    elif gateway.loading:
        fine, reason = False, "the model is being loaded"
    if fine:
        return json_response({"status": "ready"})
    return json_response({"status": "not ready", "reason": reason}, 503, {"Retry-After": "1"})


async def version(request: Request) -> Response:
    """Name the version."""
    return json_response({"version": __version__})


async def metrics(request: Request) -> Response:
    """Give the metrics in Prometheus' text format."""
    return Response(gateway_of(request).metrics.text(), media_type="text/plain; version=0.0.4")


async def root(request: Request) -> Response:
    """Say what this is and where to go on."""
    where = {"models": "/v1/models", "docs": "/docs"}
    return json_response({"status": "home", "name": "sensorium", "version": __version__, **where})


def served_name(name: str | None, pool: Pool) -> str:
    """Return the name of the model to ask; it may be left out where the pool has a default.

    Raises:
        InvalidRequest: it was left out.
        ModelNotFound: nothing answers to it.
    """
    names = pool.names()
    if not name:
        default = pool.default()
        if default is not None:
            return default
        raise InvalidRequest(f"`model` is required; this server has {_some(names)}.", param="model")
    if name not in names:
        near = difflib.get_close_matches(name[:200], names, 3, 0.5) or names
        raise ModelNotFound(f"The model {name[:200]!r} does not exist. This server has {_some(near)}.", param="model")
    return name


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


async def body_of(request: Request, kind: type[Body]) -> Body:
    """Read the request's body as `kind`."""
    return parse_body(kind, await read_body(request, gateway_of(request).settings.max_body_bytes))


def _usage(body: SamplingFields) -> tuple[bool, bool]:
    """Return whether a usage chunk ends the stream, and whether every chunk carries usage so far."""
    options = body.stream_options
    return (bool(options.include_usage), bool(options.continuous_usage_stats)) if options else (False, False)
