"""A running server's registry, asked over HTTP; or, where no server runs, the registry's file itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.http_client import http_client, with_scheme

_CONNECT_S = 5.0


class NobodyThere(ConfigurationError):
    """No server answers at the address."""


class RegistryClient:
    """The registry of the server at `url` (with or without /v1)."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = with_scheme(url).rstrip("/").removesuffix("/v1")
        if key and not (key.isascii() and key.isprintable()):
            raise ConfigurationError("The key holds characters that a header cannot hold.")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Loading a large model takes as long as it takes.
        timeout = httpx.Timeout(_CONNECT_S, read=None)
        self._client = http_client(httpx.Client, self.url, headers=headers, timeout=timeout)

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._client.close()

    def all(self) -> list[dict[str, Any]]:
        """Return every model, as `one` does."""
        return [self.one(str(card["id"])) for card in self._ask("GET", "/v1/models")["data"]]

    def one(self, alias: str) -> dict[str, Any]:
        """Return one model's card and state."""
        return self._ask("GET", _path(alias))

    def register(self, body: dict[str, Any], wait: bool | None) -> dict[str, Any]:
        """Register; `wait`: until it is loaded; None: as the registration says."""
        query = "" if wait is None else f"?wait={'true' if wait else 'false'}"
        return self._ask("POST", f"/v1/models/register{query}", body)

    def load(self, alias: str, wait: bool) -> dict[str, Any]:
        """Load a model."""
        return self._ask("POST", f"{_path(alias)}/load{'' if wait else '?wait=0'}")

    def unload(self, alias: str) -> dict[str, Any]:
        """Give its memory back."""
        return self._ask("POST", f"{_path(alias)}/unload")

    def remove(self, alias: str) -> dict[str, Any]:
        """Forget it."""
        return self._ask("DELETE", _path(alias))

    def events(self, alias: str | None) -> Iterator[dict[str, Any]]:
        """Yield what happens, until the server ends."""
        path = f"{_path(alias)}/events" if alias else "/v1/models/events"
        try:
            with self._client.stream("GET", self.url + path) as response:
                if response.status_code != 200:
                    response.read()
                    raise _refused(self.url, response)
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        yield json.loads(line.removeprefix("data: "))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _broken(self.url, error) from None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._client.request(method, self.url + path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _broken(self.url, error) from None
        if response.status_code >= 400:
            raise _refused(self.url, response)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ConfigurationError(f"{self.url} answers, but is not a server of Sensorium.")
        return answer


def _path(alias: str) -> str:
    return f"/v1/models/{quote(alias, safe='/')}"


def _broken(url: str, error: Exception) -> SensoriumError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL | httpx.UnsupportedProtocol):
        return NobodyThere(
            f"No server answers at {url}. Start one with `sensorium serve`, or name another with --url or "
            "SENSORIUM_URL."
        )
    return SensoriumError(f"The server at {url} broke off ({type(error).__name__}).")


def _refused(url: str, response: httpx.Response) -> SensoriumError:
    try:
        said = str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        said = response.text[:200]
    if response.status_code == 401:
        said += " Give --key, or set SENSORIUM_ADMIN_KEY or SENSORIUM_API_KEY."
    return SensoriumError(said or f"{url} answered {response.status_code}.")
