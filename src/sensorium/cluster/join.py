"""A node agent's way into a cluster: it registers at the gateway over HTTP, and again when it was forgotten.

Every few seconds it says that it is there. The gateway dials the agent, not the other way round.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx

from sensorium.cluster import token
from sensorium.cluster.agent import Agent
from sensorium.cluster.nodes import gpu_info
from sensorium.errors import ConfigurationError, ModelUnavailable
from sensorium.http_client import http_client

HEARTBEAT_S = 5.0
_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_ANSWER_S = 30.0
_GOODBYE_S = 2.0
_FORGOTTEN = 404  # any other status may be a proxy's; registering again would end the workers that run
_FINAL = (400, 401, 403, 405, 409)  # waiting does not help

log = logging.getLogger(__name__)


class Joining:
    """Keeps an agent registered.

    Args:
        url: tcp://host:port at which the gateway reaches the agent.
        manager_url: the gateway, http://host:port.
    """

    def __init__(self, agent: Agent, url: str, manager_url: str, key: bytes, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.joined = False
        self._agent = agent
        self._url = url
        self._manager_url = manager_url.rstrip("/")
        self._key = key
        self._heartbeat_s = heartbeat_s

    async def run(self) -> None:
        """Stay registered until cancelled, then say goodbye.

        Raises:
            ConfigurationError: the gateway will not take this worker, and never did.
        """
        async with http_client(httpx.AsyncClient, self._manager_url, timeout=_ANSWER_S) as client:
            try:
                await self._stay(client)
            finally:
                if self.joined and self._agent.connected:
                    await self._say_goodbye(client)

    async def _stay(self, client: httpx.AsyncClient) -> None:
        tries = 0
        known = False
        while True:
            self._agent.changed.clear()
            try:
                known = known and self._agent.connected and await self._beat(client)
                if not known:
                    await self._register(client)
                    known, self.joined, tries = True, True, 0
            except ModelUnavailable as error:
                level = logging.WARNING if tries < len(_RETRY_S) else logging.DEBUG  # said often enough by then
                log.log(level, "%s", error.message)
            wait_s = self._heartbeat_s if known else _RETRY_S[min(tries, len(_RETRY_S) - 1)]
            tries = 0 if known else tries + 1
            try:  # the end of the control connection is noticed before a heartbeat is due
                async with asyncio.timeout(wait_s):
                    while not known or self._agent.connected:
                        await self._agent.changed.wait()
                        self._agent.changed.clear()
            except TimeoutError:
                pass

    async def _say_goodbye(self, client: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await self._say(client, "DELETE", f"/workers/{self._agent.worker_id}/unregister")
        except (ModelUnavailable, TimeoutError):  # the end of the connection tells it, too
            log.warning("the gateway %s did not hear that the worker leaves", self._manager_url)

    async def _register(self, client: httpx.AsyncClient) -> None:
        body = {
            "worker_id": self._agent.worker_id,
            "worker_url": self._url,
            "public_worker_url": self._url,
            "gpu_info": gpu_info(self._agent.machine().gpus),
        }
        status, message = await self._say(client, "POST", "/workers/register", body)
        if status == 200:
            log.info("the worker %r has joined %s", self._agent.worker_id, self._manager_url)
        elif status in _FINAL and not self.joined:
            raise ConfigurationError(f"{self._manager_url} does not take this worker: {message}")
        else:
            raise ModelUnavailable(f"{self._manager_url} does not take this worker now: {message}")

    async def _beat(self, client: httpx.AsyncClient) -> bool:
        body = {"gpu_info": gpu_info(self._agent.machine().gpus), "instances": self._agent.instances()}
        status, _ = await self._say(client, "POST", f"/workers/{self._agent.worker_id}/heartbeat", body)
        return status != _FORGOTTEN

    async def _say(
        self, client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, str]:
        content = json.dumps(body or {}).encode()
        headers = {
            "Content-Type": "application/json",
            token.SIGNATURE_HEADER: token.sign(self._key, method, path, content, time.time()),
        }
        try:
            answer = await client.request(method, self._manager_url + path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise ModelUnavailable(
                f"The gateway {self._manager_url} cannot be reached ({type(error).__name__}); it is tried again."
            ) from None
        try:
            message = str(answer.json().get("message", ""))
        except (ValueError, AttributeError):
            message = ""
        return answer.status_code, message[:500] or f"HTTP {answer.status_code}"


def own_address(manager_url: str) -> str:
    """Return the address of this machine from which the gateway is reached.

    Raises:
        ConfigurationError: `manager_url` is no http(s) URL, or its host has no address.
    """
    try:
        parts = urlsplit(manager_url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        (host or "").encode("idna")  # as looking it up does
    except ValueError:
        parts, host, port = urlsplit(""), None, 0
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"--manager-url is {manager_url!r}; it must be like http://gateway:8000.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing: only the way is looked up
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigurationError(f"The gateway {manager_url!r} cannot be reached: {error.strerror}.") from None
