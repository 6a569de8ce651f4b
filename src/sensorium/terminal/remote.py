"""Any OpenAI-compatible server as the other side of `sensorium chat`."""

from __future__ import annotations

import json
from collections.abc import Generator
from types import TracebackType
from typing import Any

import httpx

from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.http_client import http_client, with_scheme
from sensorium.terminal.answer import Messages

_CONNECT_S = 10.0
_LIST_S = 30.0


class RemoteModel:
    """The first model of the server at `url` (with or without /v1).

    Raises:
        ConfigurationError: nobody answers there, or not in a way that is understood.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        base = with_scheme(url).rstrip("/")
        base = base if base.endswith("/v1") else f"{base}/v1"
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ConfigurationError("The --api-key holds characters that a header cannot hold.")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(_CONNECT_S, read=None)  # a first token may take as long as loading a model
        self._client = http_client(httpx.Client, base, headers=headers, timeout=timeout)
        self._base = base
        try:
            response = self._client.get(f"{base}/models", timeout=_LIST_S)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConfigurationError(f"No server answers at {base} ({type(error).__name__}).") from None
        if response.status_code != 200:
            raise ConfigurationError(_refusal(base, response.status_code, response.text))
        try:
            self.name = str(response.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            raise ConfigurationError(f"{base}/models does not list a model; is it an OpenAI server?") from None

    def __enter__(self) -> RemoteModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._client.close()

    def answer(
        self, messages: Messages, *, max_tokens: int | None, temperature: float | None
    ) -> Generator[str, None, None]:
        """Yield the answer in pieces.

        Raises:
            SensoriumError: the server refused or broke off.
        """
        body: dict[str, Any] = {"model": self.name, "messages": messages, "stream": True}
        body |= {"max_tokens": max_tokens} if max_tokens is not None else {}
        body |= {"temperature": temperature} if temperature is not None else {}
        try:
            with self._client.stream("POST", f"{self._base}/chat/completions", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise SensoriumError(_refusal(self._base, response.status_code, response.text))
                for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    yield from _piece(data)
                raise SensoriumError(f"The server at {self._base} ended the stream before the answer was complete.")
        except UnicodeEncodeError:
            raise SensoriumError("The conversation holds characters that are not valid Unicode.") from None
        except httpx.HTTPError as error:
            raise SensoriumError(f"The server at {self._base} broke off ({type(error).__name__}).") from None


def _piece(data: str) -> Generator[str, None, None]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise SensoriumError("The server sent something that is not an answer.")
    if isinstance(event.get("error"), dict):
        raise SensoriumError(str(event["error"].get("message")))
    for choice in event.get("choices") or ():
        if text := (choice.get("delta") or {}).get("content"):
            yield text


def _refusal(base: str, status: int, text: str) -> str:
    try:
        said = json.loads(text)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        said = text[:200]
    return f"The server at {base} answered {status}: {said}"
