"""The app: routes, middlewares and error handlers on one page."""

from __future__ import annotations

import pydantic
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from sensorium import __version__, way
from sensorium.cluster.spawner import ClusterSpawner
from sensorium.errors import SensoriumError, TooLarge
from sensorium.protocol.adapters import LoadAdapterBody, UnloadAdapterBody
from sensorium.protocol.chat import ChatBody
from sensorium.protocol.completions import CompletionBody
from sensorium.protocol.registration import RegisterBody
from sensorium.protocol.rtp import RawBody
from sensorium.protocol.tokens import DetokenizeBody, TokenizeBody
from sensorium.registry.interface import Pool
from sensorium.registry.registrar import Registrar
from sensorium.server import adapters, model_events, model_routes, registry_routes, routes, rtp_routes, workers
from sensorium.server.auth import Auth
from sensorium.server.docs import docs, request_body, write_openapi
from sensorium.server.gate import Admission, Gate
from sensorium.server.read import ClientGone
from sensorium.server.record import record_of
from sensorium.server.reply import error_response, routing_error
from sensorium.server.telemetry import CLIENT_GONE, Metrics, Telemetry
from sensorium.server.waiting import loading_details
from sensorium.settings import ServerSettings

ROUTES = (
    ("POST", "/v1/chat/completions", routes.chat_completions, ChatBody),
    ("POST", "/chat/completions", routes.chat_completions, ChatBody),
    ("POST", "/v1/completions", routes.completions, CompletionBody),
    ("POST", "/", rtp_routes.raw, RawBody),
    ("GET", "/v1/models", model_routes.models, None),
    ("POST", "/v1/models/register", registry_routes.register, RegisterBody),
    ("GET", "/v1/models/events", model_events.events, None),
    ("POST", "/v1/models/{alias:path}/load", registry_routes.load, None),
    ("POST", "/v1/models/{alias:path}/unload", registry_routes.unload, None),
    ("GET", "/v1/models/{alias:path}/events", model_events.events, None),
    ("GET", "/v1/models/{alias:path}", model_routes.model, None),  # names may hold slashes, so this comes last
    ("DELETE", "/v1/models/{alias:path}", registry_routes.remove, None),
    ("POST", "/v1/load_lora_adapter", adapters.load_adapter, LoadAdapterBody),
    ("POST", "/v1/unload_lora_adapter", adapters.unload_adapter, UnloadAdapterBody),
    ("POST", "/tokenize", routes.tokenize, TokenizeBody),
    ("POST", "/detokenize", routes.detokenize, DetokenizeBody),
    ("GET", "/workers", workers.workers, None),
    ("GET", "/health", routes.health, None),
    ("GET", "/ping", routes.health, None),
    ("GET", "/ready", routes.ready, None),
    ("GET", "/version", routes.version, None),
    ("GET", "/metrics", routes.metrics, None),
    ("GET", "/docs", docs, None),
    ("GET", "/", routes.root, None),
)
BODIES: list[type[pydantic.BaseModel]] = [
    *(ChatBody, CompletionBody, RawBody, TokenizeBody, DetokenizeBody),
    *(LoadAdapterBody, UnloadAdapterBody, RegisterBody),
]


def create_app(
    pool: Pool,
    settings: ServerSettings,
    fetch: way.Fetch | None = None,
    registrar: Registrar | None = None,
    cluster: ClusterSpawner | None = None,
) -> FastAPI:
    """Return the gateway over `pool`.

    Args:
        fetch: gets media's bytes; the default is `sensorium.media.fetch`.
        registrar: registers models; the default keeps nothing.
        cluster: where the pool's workers come from; None: from this machine, and nobody may join.
    """
    if fetch is None:
        from sensorium.media.fetch import fetch_media

        fetch = fetch_media
    gate, metrics = Gate(settings.max_queued), Metrics(pool)
    app = FastAPI(
        title="Sensorium",
        version=__version__,
        docs_url=None,  # FastAPI's page loads its scripts from a CDN
        redoc_url=None,
        middleware=[  # the first is the outermost
            Middleware(Telemetry, metrics=metrics),
            Middleware(workers.WorkerRoutes, nodes=cluster.nodes if cluster else None),
            Middleware(Auth, api_keys=settings.api_keys, admin_keys=settings.admin_keys),
            Middleware(Admission, gate=gate),
        ],
        exception_handlers={
            SensoriumError: _refused,
            HTTPException: _unrouted,
            ClientGone: _gone,
        },
    )
    app.state.cluster = cluster
    app.state.gateway = routes.Gateway(
        pool, settings, fetch, gate, metrics, registrar or Registrar(pool, media=settings.media)
    )
    for method, path, handler, body in ROUTES:
        app.add_api_route(path, handler, methods=[method], openapi_extra=request_body(body), response_class=Response)
        if method == "GET":
            app.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False)
    app.openapi = lambda: write_openapi(app, BODIES)  # type: ignore[method-assign]
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, SensoriumError)
    # What is left of a body nobody will read would be taken for the next request's head.
    close = isinstance(error, TooLarge) or error.code == "body_timeout"
    gateway: routes.Gateway = request.app.state.gateway
    return error_response(error, close, loading_details(error, gateway.pool, record_of(request.scope).model))


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return routing_error(error.status_code, request.method, request.scope["path"], headers)


async def _gone(request: Request, error: Exception) -> Response:
    record_of(request.scope).status = CLIENT_GONE
    return Response(status_code=CLIENT_GONE)  # goes nowhere
