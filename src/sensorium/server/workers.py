"""/workers: machines that join the cluster, and the list of them.

Registering makes the gateway dial an address, so it takes more than a key for asking models: what workers send is
signed with the cluster's token. That is checked here, before API keys are asked for.
"""

from __future__ import annotations

import ipaddress
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sensorium.cluster import tcp
from sensorium.cluster.nodes import Nodes
from sensorium.cluster.spawner import ClusterSpawner
from sensorium.cluster.token import SIGNATURE_HEADER, check_signature
from sensorium.errors import Forbidden, SensoriumError
from sensorium.protocol.body import parse_body
from sensorium.protocol.workers import HeartbeatBody, RegisterWorkerBody
from sensorium.server.read import ClientGone, read_body
from sensorium.server.reply import error_response, json_response

MAX_BYTES = 64 * 1024
_PREFIX = "/workers/"


class WorkerRoutes:
    """ASGI middleware: answers what workers send, and hands on everything else."""

    def __init__(self, app: ASGIApp, nodes: Nodes | None) -> None:
        self.app = app
        self._nodes = nodes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIX):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        worker_id, _, verb = scope["path"].removeprefix(_PREFIX).rpartition("/")
        try:
            response = await self._answer(request, worker_id, verb)
        except SensoriumError as error:
            response = error_response(error, close=error.code in ("body_timeout", "request_too_large"))
        except ClientGone:
            return
        if response is None:
            await self.app(scope, receive, send)
        else:
            await response(scope, receive, send)

    async def _answer(self, request: Request, worker_id: str, verb: str) -> Response | None:
        match (request.method, bool(worker_id), verb):
            case ("POST", False, "register"):
                body = parse_body(RegisterWorkerBody, await self._signed(request))
                url = reachable(body.public_worker_url or body.worker_url, request)
                await self._joined().register(body.worker_id, url)
                return _success(f"Worker {body.worker_id} registered successfully")
            case ("POST", True, "heartbeat"):
                parse_body(HeartbeatBody, await self._signed(request))
                self._joined().heartbeat(worker_id)
                return _success("Heartbeat received")
            case ("DELETE", True, "unregister"):
                await self._signed(request)
                self._joined().unregister(worker_id)
                return _success(f"Worker {worker_id} unregistered")
        return None

    def _joined(self) -> Nodes:
        if self._nodes is None:
            raise Forbidden(
                "This server takes no workers. Start it with --cluster join, or with a --cluster-token.",
                code="no_cluster",
            )
        return self._nodes

    async def _signed(self, request: Request) -> bytes:
        """Return the body, once its signature is right."""
        key = self._joined().key
        body = await read_body(request, MAX_BYTES)
        signature = request.headers.get(SIGNATURE_HEADER, "")
        check_signature(key, signature, request.method, request.scope["path"], body, time.time())
        return body


async def workers(request: Request) -> Response:
    """List the machines of the cluster, and the models on them."""
    cluster: ClusterSpawner | None = request.app.state.cluster
    return json_response({"workers": await cluster.rows() if cluster is not None else []})


def reachable(url: str, request: Request) -> str:
    """Return a worker's URL with the address its request came from, where it says only that it listens everywhere."""
    host, port = tcp.address_of(url)
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        everywhere = False
    return tcp.url_of(request.client.host, port) if everywhere and request.client else url


def _success(message: str) -> Response:
    return json_response({"status": "success", "message": message})
