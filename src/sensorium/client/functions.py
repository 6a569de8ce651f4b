"""Ask a running server: the client functions of ms-swift 2.6, by their names and with their arguments."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

import httpx

from sensorium.client.answer import convert, parse_line, read, refusal
from sensorium.client.request import Arguments, History
from sensorium.client.types import ChatCompletionStreamResponse, CompletionStreamResponse, ModelList, XRequestConfig
from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.http_client import http_client

Chunk = ChatCompletionStreamResponse | CompletionStreamResponse

_TIMEOUT_S = "1800"


def get_model_list_client(
    host: str = "127.0.0.1", port: str | int = "8000", api_key: str = "EMPTY", *, url: str | None = None
) -> ModelList:
    """Return the models of the server at `host` and `port`, or at `url` (with /v1).

    Raises:
        SensoriumError: nobody answers there, or the server refuses.
    """
    base = _base(host, port, url)
    with _client(httpx.Client, base, api_key) as client, _speaking(base):
        return read(client.get(f"{base}/models"), ModelList)  # type: ignore[no-any-return]


async def get_model_list_client_async(
    host: str = "127.0.0.1", port: str | int = "8000", api_key: str = "EMPTY", *, url: str | None = None
) -> ModelList:
    """Do what `get_model_list_client` does."""
    base = _base(host, port, url)
    async with _client(httpx.AsyncClient, base, api_key) as client:
        with _speaking(base):
            return read(await client.get(f"{base}/models"), ModelList)  # type: ignore[no-any-return]


def inference_client(
    model_type: str,
    query: str,
    history: History | None = None,
    system: str | None = None,
    images: Sequence[Any] | None = None,
    tools: list[dict[str, Any]] | None = None,
    tool_choice: str | dict[str, Any] | None = "auto",
    *,
    is_chat_request: bool | None = None,
    is_multimodal: bool | None = None,
    request_config: XRequestConfig | None = None,
    host: str = "127.0.0.1",
    port: str | int = "8000",
    api_key: str = "EMPTY",
    **others: Any,
) -> Any:
    """Ask a server's model.

    Args:
        model_type: the model's name there.
        query: what to ask. Media are in it as `<img>X</img>`, `<audio>X</audio>`, `<video>X</video>`, or as `<image>`,
            `<audio>`, `<video>` with the items in the lists below. Files of this machine are sent as base64.
        history: the turns before.
        images: of the whole conversation, oldest first; so `audios` and `videos`.
        is_chat_request: False: `query` is a finished prompt. None: as the server's list of models says.
        is_multimodal: whether tags are looked into for files. None: as the list says.
        others: `audios`, `videos`, `url` (instead of host and port, with /v1), `roles` (one pair of roles per turn).

    Returns:
        The answer; with `request_config.stream` an iterator of its chunks, whose request is under way.

    Raises:
        SensoriumError: nobody answers, or the server refuses: InvalidRequest, ModelNotFound, Unauthorized, ...
    """
    asked = Arguments(model_type, query, history, system, images, tools, tool_choice, request_config, others)
    base = _base(host, port, asked.url)
    if asked.needs_list(is_chat_request, is_multimodal):
        listed = get_model_list_client(api_key=api_key, url=base)
        is_chat_request, is_multimodal = asked.kind(listed, is_chat_request, is_multimodal)
    path, body, whole, chunk = asked.request(is_chat_request, is_multimodal)
    with ExitStack() as until_answered, _speaking(base):
        client = until_answered.enter_context(_client(httpx.Client, base, api_key))
        if not body.get("stream"):
            return read(client.post(f"{base}/{path}", json=body), whole)
        response = client.send(client.build_request("POST", f"{base}/{path}", json=body), stream=True)
        if response.status_code != httpx.codes.OK:
            response.read()
            raise refusal(response)
        client_open = until_answered.pop_all()  # the iterator closes it
    return _chunks(client_open, response, chunk, base)


async def inference_client_async(
    model_type: str,
    query: str,
    history: History | None = None,
    system: str | None = None,
    images: Sequence[Any] | None = None,
    tools: list[dict[str, Any]] | None = None,
    tool_choice: str | dict[str, Any] | None = "auto",
    *,
    is_chat_request: bool | None = None,
    is_multimodal: bool | None = None,
    request_config: XRequestConfig | None = None,
    host: str = "127.0.0.1",
    port: str | int = "8000",
    api_key: str = "EMPTY",
    **others: Any,
) -> Any:
    """Do what `inference_client` does; with `request_config.stream` return an asynchronous iterator."""
    asked = Arguments(model_type, query, history, system, images, tools, tool_choice, request_config, others)
    base = _base(host, port, asked.url)
    if asked.needs_list(is_chat_request, is_multimodal):
        listed = await get_model_list_client_async(api_key=api_key, url=base)
        is_chat_request, is_multimodal = asked.kind(listed, is_chat_request, is_multimodal)
    path, body, whole, chunk = asked.request(is_chat_request, is_multimodal)
    async with AsyncExitStack() as until_answered:
        with _speaking(base):
            client = await until_answered.enter_async_context(_client(httpx.AsyncClient, base, api_key))
            if not body.get("stream"):
                return read(await client.post(f"{base}/{path}", json=body), whole)
            response = await client.send(client.build_request("POST", f"{base}/{path}", json=body), stream=True)
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise refusal(response)
            client_open = until_answered.pop_all()  # the iterator closes it
    return _chunks_async(client_open, response, chunk, base)


@contextmanager
def _speaking(base: str) -> Iterator[None]:
    """Say in our words, and with the address, what went wrong with a connection."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SensoriumError(f"No answer from {base} ({type(error).__name__}). Is a server running there?") from None


def _client(kind: Any, base: str, api_key: str | None) -> Any:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    written = os.getenv("TIMEOUT", "").strip() or _TIMEOUT_S
    try:
        timeout_s = float(written)
    except ValueError:
        raise ConfigurationError(f"TIMEOUT is {written!r}; it must be a number of seconds.") from None
    return http_client(kind, base, headers=headers, timeout=timeout_s if timeout_s > 0 else None)


def _base(host: str, port: str | int, url: str | None) -> str:
    return (url or f"http://{host}:{port}/v1").rstrip("/")


def _chunks(client: ExitStack, response: httpx.Response, kind: Any, base: str) -> Iterator[Chunk]:
    with client, _speaking(base):
        for text in response.iter_lines():
            line = parse_line(text)
            if line.is_end:
                return
            if line.event is not None:
                yield convert(line.event, kind)
    raise SensoriumError(f"{base} ended the stream before the answer was complete.")


async def _chunks_async(client: AsyncExitStack, response: httpx.Response, kind: Any, base: str) -> AsyncIterator[Chunk]:
    async with client:
        with _speaking(base):
            async for text in response.aiter_lines():
                line = parse_line(text)
                if line.is_end:
                    return
                if line.event is not None:
                    yield convert(line.event, kind)
    raise SensoriumError(f"{base} ended the stream before the answer was complete.")
