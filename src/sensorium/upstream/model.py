"""A model that another server runs, with the face of a model of this process (`worker.process.Model`)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import NoReturn, TypeVar

import msgspec

from sensorium.errors import (
    ConfigurationError,
    ContextLengthExceeded,
    InvalidRequest,
    SensoriumError,
    UpstreamFailed,
)
from sensorium.types import Adapter, Event, MediaUse, ModelInfo, Request, Started
from sensorium.upstream.answer import Answer
from sensorium.upstream.body import TEXT, Body, copied, generation_body, prompt_body, refused
from sensorium.upstream.check import MediaCheck
from sensorium.upstream.client import Client
from sensorium.upstream.dialect import Dialect
from sensorium.worker.frames import Tokens
from sensorium.worker.system_message import with_system

T = TypeVar("T")

log = logging.getLogger(__name__)
_TOKENIZE_S = 60.0


class UpstreamModel:
    """Asks an upstream and reports what comes. Results come by callbacks, from the client's thread.

    Args:
        upstream_name: what the model is called there.
        system: the first message of conversations that bring no system message; None: there is none.
        seed: of requests that bring none; None: the upstream chooses.
    """

    def __init__(
        self,
        info: ModelInfo,
        client: Client,
        dialect: Dialect,
        check: MediaCheck,
        upstream_name: str,
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        *,
        system: str | None = None,
        seed: int | None = None,
    ) -> None:
        self.info = info
        self._client, self._dialect, self._check, self._name = client, dialect, check, upstream_name
        self._on_events, self._on_failed = on_events, on_failed
        self._system, self._seed = system, seed
        # Not the loop's own threads: those look host names up, and find out whether the upstream lives.
        self._preparing = ThreadPoolExecutor(thread_name_prefix="prepare")
        self._running: dict[str, tuple[Request, Future[None]]] = {}
        self._lock = threading.Lock()
        self._num_requests = 0
        self._num_failed = 0
        check.start()

    @property
    def tokenizer(self) -> NoReturn:
        """What `LLM.get_tokenizer` asks for.

        Raises:
            InvalidRequest: always; it is the upstream's.
        """
        raise InvalidRequest(
            f"The engine {self.info.engine} has its tokenizer elsewhere; "
            "AutoTokenizer.from_pretrained(FOLDER) reads one from a checkpoint."
        )

    def generate(self, request: Request) -> None:
        """Start a request and return; its events come by `on_events`, its failure by `on_failed`."""
        request = with_system(request, self._system)
        with self._lock:
            self._num_requests += 1
            self._running[request.id] = request, self._client.start(self._generate(request))

    def abort(self, request_id: str) -> None:
        """Close the upstream's stream, which ends its work; nothing more is reported."""
        with self._lock:
            found = self._running.pop(request_id, None)
        if found is not None:
            found[1].cancel()

    def tokenize(self, request: Request) -> Tokens:
        """Let the upstream build the prompt without running it.

        Raises:
            InvalidRequest: it does not take the request, or cannot tokenize.
        """
        self._needs_tokenizer("tokenize")
        return self._client.wait(self._tokenize(with_system(request, self._system)), _TOKENIZE_S)

    def detokenize(self, token_ids: list[int]) -> Tokens:
        """Let the upstream turn ids into text.

        Raises:
            InvalidRequest: an id is not in the vocabulary, or it cannot.
        """
        self._needs_tokenizer("detokenize")
        body = {"model": self._name, "tokens": token_ids}
        answer = self._client.wait(self._client.json("POST", "/detokenize", body, model=self._name), _TOKENIZE_S)
        return Tokens("", token_ids, str(_field(answer, "prompt", self._client.who)))

    def load_adapter(self, adapter: Adapter) -> None:
        """Refuse: adapters are files of this machine.

        Raises:
            ConfigurationError: always, unless the engine kind knows better.
        """
        raise ConfigurationError(no_adapters(self.info.engine))

    def unload_adapter(self, name: str) -> None:
        """Nothing to put away."""

    def sleep(self) -> None:
        """Give back memory that `wake` can take again.

        Raises:
            InvalidRequest: this engine has no such state.
        """
        raise InvalidRequest(f"The engine {self.info.engine} cannot sleep here; unload the model instead.")

    def wake(self) -> None:
        """Undo `sleep`."""

    def beat(self) -> tuple[int, dict[str, float]]:
        """Signs of life of the upstream, and counters."""
        raise NotImplementedError

    def counters(self) -> dict[str, float]:
        """What there is to count in every engine of this kind."""
        with self._lock:
            running = sum(not task.done() for _, task in self._running.values())
        return {
            "requests_running": running,
            "upstream_requests": self._num_requests,
            "upstream_failures": self._num_failed,
        }

    def close(self) -> None:
        """End what runs, and all connections."""
        self._preparing.shutdown(wait=False, cancel_futures=True)
        self._check.close()
        self._client.stop()

    def served_as(self, request: Request) -> str:
        """Return the upstream's name of the model, or of the adapter, that a request is for. Blocks.

        Raises:
            InvalidRequest: it wants an adapter, and this engine kind runs none.
        """
        if request.adapter is not None:
            raise InvalidRequest(no_adapters(self.info.engine), param="model")
        return self._name

    def fail_all(self, error: SensoriumError) -> None:
        """End everything that runs with one error."""
        with self._lock:
            running, self._running = self._running, {}
        for request_id, (_, task) in running.items():
            task.cancel()
            self._on_failed(request_id, error)

    async def lost(self, error: UpstreamFailed) -> None:
        """Called before a request fails with `error`: time to find out that all of them do, and why."""

    def _needs_tokenizer(self, what: str) -> None:
        if not self._dialect.tokenizes:
            raise InvalidRequest(
                f"{self._dialect.name}, which is the engine {self.info.engine} of this model, cannot {what}.",
                code="unsupported_by_engine",
            )

    async def _generate(self, request: Request) -> None:
        try:
            body, uses = await self._in_thread(lambda: self._prepare(request))
            try:
                await self._stream(request, body, uses)
            except ContextLengthExceeded:
                # Nothing was generated. Other engines take what the context leaves where `max_tokens` is more.
                if self._dialect.clamps or body.fields.pop("max_tokens", None) is None:
                    raise
                if body.path == TEXT:  # left out it would be 16
                    room = self.info.max_model_len - await self._length(body)
                    if room < 1:
                        raise
                    body.fields["max_tokens"] = room
                await self._stream(request, body, uses)
        except SensoriumError as error:
            if isinstance(error, UpstreamFailed):
                await self.lost(error)
            self._failed(request, error)
        except Exception:
            log.exception("Request %s failed", request.id)
            self._failed(request, SensoriumError("The request failed inside the server; the log says why."))
        finally:
            self._forget(request)

    def _prepare(self, request: Request) -> tuple[Body, tuple[MediaUse, ...]]:
        name = self.served_as(request)
        uses = tuple(self._check.check(item) for item in request.media)
        return generation_body(request, name, self._dialect, self.info.engine, self._seed), uses

    async def _stream(self, request: Request, body: Body, uses: tuple[MediaUse, ...]) -> None:
        copies = request.sampling.n if copied(request, self._dialect) else 1
        answer = Answer(request, self._client.who, uses, copies)
        chunks = self._client.chunks(body.path, body.fields, model=self._name, places=body.places)
        async with aclosing(chunks):
            async for chunk in chunks:
                try:
                    events = answer.read(chunk)
                except (KeyError, TypeError, ValueError, AttributeError):
                    raise UpstreamFailed(f"{self._client.who} sent something that is no piece of an answer.") from None
                if uses and events and isinstance(started := events[0], Started):
                    media = self._check.placed(uses, started.prompt_token_ids)
                    events[0] = msgspec.structs.replace(started, media=media)
                if events:
                    self._on_events(events)
        self._on_events(answer.end())

    async def _length(self, body: Body) -> int:
        prompt = body.fields["prompt"]
        if isinstance(prompt, list):
            return len(prompt)
        asked = {name: body.fields[name] for name in ("model", "prompt", "add_special_tokens") if name in body.fields}
        answer = await self._client.json("POST", "/tokenize", asked, model=self._name)
        return len(_field(answer, "tokens", self._client.who))

    async def _tokenize(self, request: Request) -> Tokens:
        uses = await self._in_thread(lambda: tuple(self._check.check(item) for item in request.media))
        if request.prompt_token_ids is not None:
            raise refused("prompt", "a list of token ids here", self._dialect, self.info.engine)
        body = prompt_body(request, self._name, self._dialect, self.info.engine)
        wanted = body.fields | {"return_token_strs": True}
        wanted.pop("cache_salt", None)
        wanted.pop("tool_choice", None)
        who = self._client.who
        answer = await self._client.json("POST", "/tokenize", wanted, model=self._name, places=body.places)
        ids = _field(answer, "tokens", who)
        return Tokens(
            request.id,
            ids,
            request.prompt if isinstance(request.prompt, str) else "",
            list(answer.get("token_strs") or ()),
            self._check.placed(uses, ids),
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._preparing, work)

    def _failed(self, request: Request, error: SensoriumError) -> None:
        with self._lock:
            self._num_failed += 1
        if self._forget(request):
            self._on_failed(request.id, error)

    def _forget(self, request: Request) -> bool:
        """Return whether it was still wanted. Once its end is told, its id may already belong to the next request."""
        with self._lock:
            found = self._running.get(request.id)
            if found is None or found[0] is not request:
                return False
            del self._running[request.id]
            return True


def no_adapters(engine: str) -> str:
    """Return what to say where an engine kind runs no adapters."""
    return (
        f"The engine {engine} runs no adapters here. With vllm start it with --enable-lora; a remote server's adapter "
        "has a name of its own there: register that as a model."
    )


def _field(answer: object, name: str, who: str) -> list[int]:
    if not isinstance(answer, dict) or name not in answer:
        raise UpstreamFailed(f"{who} answered without `{name}`.")
    found: list[int] = answer[name]
    return found
