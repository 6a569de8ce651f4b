"""The handlers that change which models there are, and which are loaded."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sensorium.errors import Forbidden, ModelNotFound, SensoriumError
from sensorium.protocol.body import parse_body
from sensorium.protocol.model_status import status_body
from sensorium.protocol.registration import RegisterBody
from sensorium.registry.engine_args import FLAG
from sensorium.registry.registration import spec_of
from sensorium.registry.status import Fit
from sensorium.server.admin import check_may_change
from sensorium.server.model_routes import routing_of
from sensorium.server.read import read_body
from sensorium.server.record import record_of
from sensorium.server.reply import error_response, json_response
from sensorium.server.routes import Gateway, gateway_of, served_name
from sensorium.server.waiting import wait_s
from sensorium.settings import GIB, MIB

Handler = Callable[[Request], Awaitable[Response]]

_MOST_BYTES = 4 * MIB  # a chat template may be among it
_MOMENT_S = 0.05
_running: set[asyncio.Task[Any]] = set()


def changing(handler: Handler) -> Handler:
    """Let only those call `handler` who may change the server, and mark its errors in the serverless service's way."""

    @functools.wraps(handler)
    async def checked(request: Request) -> Response:
        try:
            check_may_change(request, gateway_of(request).settings)
            return await handler(request)
        except SensoriumError as error:
            return error_response(error, outer={"status": "error"})

    return checked


@changing
async def register(request: Request) -> Response:
    """Register a model under an alias; it is loaded when it is asked for, or now (`preload`, or `?wait=true`).

    Answers when the registration is kept and what can be checked is checked; with `preload` or `?wait=true`, when the
    model is loaded; with `?wait=20` after 20 seconds at the latest. Registering the same again changes nothing.
    """
    gateway = gateway_of(request)
    body = parse_body(RegisterBody, await read_body(request, min(_MOST_BYTES, gateway.settings.max_body_bytes)))
    trusted = gateway.settings.trust_engine_args
    spec = spec_of(body, trusted=trusted)
    if (spec.settings.api_key or "").startswith("env:") and not trusted:
        raise Forbidden(
            "`api_key` names a variable of the server's environment, which would be sent to `base_url`; only a server "
            f"started with {FLAG}, or its own models.toml, does that. Send the key itself.",
            param="api_key",
        )
    record_of(request.scope).model = spec.alias
    asked = "wait" in request.query_params or "prefer" in request.headers
    seconds = wait_s(request)  # before anything is changed: it may be refused
    new, spec = await gateway.registrar.register(spec, replace=bool(body.replace))
    if seconds != 0 if asked else spec.preload:
        try:
            await _within(seconds, _kept(gateway.pool.load(spec.alias)))
        except SensoriumError as error:
            error.message = f"Model {spec.alias} is registered. Failed to start instance: {error.message}"
            raise
    fit = await gateway.pool.fit(spec.alias)
    said = "registered successfully" if new else "already registered"
    return json_response(
        {
            "status": "success" if new else "exists",
            "message": f"Model {spec.alias} {said}{_warning(fit)}",
            "fit": status_body(fit),
            "routing": routing_of(request, gateway, spec.alias),
        }
    )


@changing
async def remove(request: Request) -> Response:
    """Forget a registered model: its running requests end, and its memory is free."""
    gateway, alias = gateway_of(request), request.path_params["alias"]
    record_of(request.scope).model = alias if gateway.registrar.spec(alias) else ""
    await gateway.registrar.remove(alias)
    return json_response({"status": "success", "message": f"Model {alias} unregistered"})


@changing
async def load(request: Request) -> Response:
    """Load a model now; answers when it is ready; with `?wait=20` after 20 seconds at the latest (202)."""
    return await _change(request, gateway_of(request).pool.load, "loaded")


@changing
async def unload(request: Request) -> Response:
    """Give a model's memory back once its running requests have ended; the next request loads it again."""
    return await _change(request, gateway_of(request).pool.unload, "unloaded")


async def _change(request: Request, change: Callable[[str], Coroutine[Any, Any, None]], done: str) -> Response:
    """Make a change to the end, and tell that it is `done`, or that it is being if the client's patience ends first."""
    gateway, name, seconds = gateway_of(request), _named(request), wait_s(request)
    if not await _within(seconds, _kept(change(name))):
        return _told(gateway, name, f"is being {done}", 202)
    return _told(gateway, name, f"is {done}")


def _warning(fit: Fit) -> str:
    """Return what to add for a model that will never fit as it is registered."""
    if fit.answer != "cannot":
        return ""
    needs, has = (f"{count / GIB:.2f} GiB" for count in (fit.needed_bytes, fit.budget_bytes))
    return (
        f", but it will not load: it needs {needs} of {fit.memory} memory, models may take {has}. {fit.lower}".rstrip()
    )


def _named(request: Request) -> str:
    """Return the name in the address."""
    alias = request.path_params["alias"]
    if not alias:
        raise ModelNotFound("The address names no model: /v1/models/ALIAS/load.", param="alias")
    name = record_of(request.scope).model = served_name(alias, gateway_of(request).pool)
    return name


def _told(gateway: Gateway, name: str, what: str, status: int = 200) -> Response:
    model = status_body(gateway.pool.status(name))
    return json_response({"status": "success", "message": f"Model {name} {what}", "model": model}, status)


def _kept(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run something to its end, whatever becomes of the client who asked for it."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # the model's status has it, if nobody waits any more


async def _within(seconds: float | None, task: asyncio.Task[None]) -> bool:
    """Whether it is done after so long, and after one moment at least, so that what is refused at once is told."""
    done, _ = await asyncio.wait([task], timeout=seconds if seconds is None else max(seconds, _MOMENT_S))
    for task in done:
        task.result()
    return bool(done)
