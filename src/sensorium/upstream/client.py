"""The connection to an upstream: an event loop in a thread of its own, and one httpx client in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from typing import Any, TypeVar

import httpx

from sensorium.errors import SensoriumError, UpstreamFailed
from sensorium.http_client import http_client
from sensorium.upstream.failures import LOST, TIMED_OUT, UNREACHABLE, failure, stream_failure

T = TypeVar("T")

_CONNECT_S = 10.0
_MOST_ERROR_BYTES = 1 << 16
_MOST_LINE = 32 << 20
_DONE = "[DONE]"


class Client:
    """Asks one upstream.

    Args:
        api_url: what stands before /chat/completions, without a slash at its end. /tokenize and the like, which are no
            part of OpenAI's API, are looked for beside its /v1.
        who: what it is called in messages.
        headers: sent with everything, the key among them. Nothing of our clients' own headers ever is.
        uds: path of the Unix socket it listens on, instead of the URL's host and port.
        timeout_s: how long it may be silent within an answer; None: for ever.
    """

    def __init__(
        self,
        api_url: str,
        who: str,
        headers: Mapping[str, str],
        *,
        uds: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.who = who
        self._api, self._root = api_url, api_url.removesuffix("/v1")
        self._timeout_s = timeout_s
        # Each answer has a connection of its own for as long as it lasts; the gateway bounds how many there are.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        transport = httpx.AsyncHTTPTransport(uds=uds, limits=limits) if uds else None
        self._http = http_client(
            httpx.AsyncClient,
            "http://127.0.0.1" if uds else api_url,  # a socket is on this machine
            headers=headers,
            transport=transport,
            limits=limits,
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s or _CONNECT_S), pool=None),
            follow_redirects=False,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the loop's thread; cancelling the future cancels it. Thread-safe."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine in the loop's thread and wait for it.

        Raises:
            UpstreamFailed: it took longer than `timeout_s`, and was ended; or `stop` was called.
        """
        try:
            asked = self.start(work)
        except RuntimeError:
            work.close()
            raise self._stopped() from None
        try:
            return asked.result(timeout_s)
        except CancelledError:
            raise self._stopped() from None
        except TimeoutError:
            asked.cancel()
            raise UpstreamFailed(f"{self.who} said nothing for {timeout_s or 0.0:g} s.", code=TIMED_OUT) from None

    async def text(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        model: str = "",
        places: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> str:
        """Return the body that is answered. A `path` that begins with a slash is one beside the API.

        Raises:
            SensoriumError: it is an error, or none was answered; `places` is for its message.
        """
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            response = await self._http.request(method, self._url(path), json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise self._broken(error, timeout_s) from error
        if response.status_code != 200:
            said = response.text[:_MOST_ERROR_BYTES]
            raise self._failure(response, said, model, places)
        return response.text

    async def json(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Return the JSON that is answered; see `text`.

        Raises:
            SensoriumError: as there, or it is not JSON.
        """
        try:
            return json.loads(await self.text(method, path, body, **options) or "null")
        except (ValueError, RecursionError):
            raise UpstreamFailed(f"{self.who} answered something that is not JSON.") from None

    async def chunks(
        self, path: str, body: Any, *, model: str, places: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the chunks of a streamed answer; closing the generator closes the connection, which aborts it.

        Raises:
            SensoriumError: it was refused, broke off, or an error stands in the stream.
        """
        try:
            async with self._http.stream("POST", self._url(path), json=body) as response:
                if response.status_code != 200:
                    raise self._failure(response, await _head(response), model, places)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise UpstreamFailed(f"{self.who} did not stream its answer.")
                async with aclosing(_data_lines(response)) as lines:
                    async for data in lines:
                        if data == _DONE:
                            return
                        chunk = json.loads(data)
                        if not isinstance(chunk, dict):
                            raise ValueError
                        error = chunk.get("error")
                        if error:
                            said = error if isinstance(error, dict) else {"message": str(error)}
                            raise stream_failure(said, who=self.who, model=model, places=places)
                        yield chunk
        except httpx.HTTPError as error:
            raise self._broken(error) from error
        except (ValueError, RecursionError):
            raise UpstreamFailed(f"{self.who} sent something that is no piece of an answer.") from None

    def stop(self) -> None:
        """End the thread; what still runs in it is dropped. Thread-safe."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        running = asyncio.all_tasks(self._loop)
        for task in running:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*running, return_exceptions=True))
        self._loop.close()

    def _url(self, path: str) -> str:
        return self._root + path if path.startswith("/") else f"{self._api}/{path}"

    def _failure(
        self, response: httpx.Response, said: str, model: str, places: Mapping[str, str] | None
    ) -> SensoriumError:
        wait = response.headers.get("retry-after")
        return failure(response.status_code, said, who=self.who, model=model, retry_after=wait, places=places)

    def _stopped(self) -> UpstreamFailed:
        return UpstreamFailed(f"The connection to {self.who} was closed.", code=LOST)

    def _broken(self, error: httpx.HTTPError, timeout_s: float | None = None) -> UpstreamFailed:
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
            return UpstreamFailed(f"{self.who} cannot be reached.", code=UNREACHABLE)
        if isinstance(error, httpx.TimeoutException):
            seconds = timeout_s or self._timeout_s or 0.0
            return UpstreamFailed(f"{self.who} said nothing for {seconds:g} s.", code=TIMED_OUT)
        return UpstreamFailed(f"The connection to {self.who} broke off. Send the request again.", code=LOST)


async def _head(response: httpx.Response) -> str:
    found = b""
    async for piece in response.aiter_bytes():
        found += piece
        if len(found) >= _MOST_ERROR_BYTES:
            break
    return found[:_MOST_ERROR_BYTES].decode("utf-8", "replace")


async def _data_lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Yield the data of each event; comments, other fields and blank lines are not about the answer.

    Lines end with \\n or \\r\\n only: httpx's own reader also splits at characters that may stand within JSON.
    """
    pending = b""
    async for piece in response.aiter_bytes():
        *lines, pending = (pending + piece).split(b"\n")
        if len(pending) > _MOST_LINE:
            raise UpstreamFailed("A line of the answer is longer than any that makes sense.")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode("utf-8")
    if pending.startswith(b"data:"):
        yield pending[5:].strip().decode("utf-8")
