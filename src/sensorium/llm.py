"""The offline API: a model in this process, asked without a server. Names are vLLM's."""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import logging
import os
import queue
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from sensorium import way
from sensorium.client import (
    XRequestConfig,
    convert_to_base64,
    get_model_list_client,
    get_model_list_client_async,
    inference_client,
    inference_client_async,
)
from sensorium.cores import wait_briefly
from sensorium.errors import InvalidRequest, SensoriumError
from sensorium.inputs import Prompt, check_sampling, from_messages, from_prompt, prompt_list
from sensorium.llm_options import engine_settings
from sensorium.loop_thread import CLOSED, LoopThread
from sensorium.lora.request import LoraRequests, adapters_of
from sensorium.media.fetch import fetch_media
from sensorium.outputs import RequestOutput, fold
from sensorium.protocol.parsed import Parsed
from sensorium.terminal.bar import Bar
from sensorium.types import Delta, Event, ModelInfo, SamplingParams
from sensorium.worker.local import LocalHandle, LocalLoader
from sensorium.worker.malloc import keep_freed_memory
from sensorium.worker.one_model import OneModel

if TYPE_CHECKING:
    from sensorium.auto_tokenizer import AutoTokenizer
    from sensorium.prompt.tokenizer import Tokenizer

__all__ = [
    "LLM",
    "SamplingParams",
    # ms-swift has the functions that ask a server in a module of this name.
    "XRequestConfig",
    "convert_to_base64",
    "get_model_list_client",
    "get_model_list_client_async",
    "inference_client",
    "inference_client_async",
]

log = logging.getLogger(__name__)

_MAX_TOGETHER = 512  # requests handed to the engine at once; their pictures are in memory

T = TypeVar("T")


class LLM:
    """A loaded model.

        with LLM("tiny-vl") as llm:
            print(llm.chat([{"role": "user", "content": "Hello!"}])[0].outputs[0].text)

    Args:
        model: a folder, a hub id, or "tiny-vl", which comes with this package.
        options: fields of EngineSettings (dtype, max_model_len, max_num_seqs, limit_mm_per_prompt, ...), and those of
            vLLM's LLM; what has no meaning here is accepted and named in the log.

    Raises:
        TypeError: an option is not known.
        ConfigurationError: the model cannot be loaded.
    """

    def __init__(self, model: str = "tiny-vl", *, _loader: LocalLoader | None = None, **options: Any) -> None:
        settings = engine_settings(model, options)
        keep_freed_memory()
        wait_briefly(os.environ)  # has no effect where the program has imported torch already
        self._loop = LoopThread("llm")
        self._ids = itertools.count()
        self._settings = settings
        self._closed = False
        try:
            with Bar("Loading", 1.0) as (progress, task):

                def on_progress(phase: str, fraction: float) -> None:
                    progress.update(task, description=f"Loading: {phase}", completed=fraction)

                self._handle = self._wait(LocalHandle.load(_loader or _chosen(), settings, on_progress))
        except BaseException:
            self._loop.close()
            self._closed = True
            raise
        self._pool = OneModel(self._handle)
        # Threads of the engine must be gone before the interpreter takes torch apart.
        self._at_exit = functools.partial(_close_if_alive, weakref.ref(self))
        atexit.register(self._at_exit)

    @property
    def info(self) -> ModelInfo:
        """What the model tells about itself."""
        return self._handle.info

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: LoraRequests = None,
    ) -> list[RequestOutput]:
        """Answer one prompt or many, in their order; the engine works on them together.

        Args:
            lora_request: the adapter of all prompts, or one (or None) for each.

        Raises:
            SensoriumError: one of them is wrong; the others are aborted.
        """
        several = prompt_list(prompts)
        parsed = [
            from_prompt(prompt, self._settings.name, self._next_id(), sampling)
            for prompt, sampling in zip(several, self._samplings(sampling_params, len(several)), strict=True)
        ]
        return self._run(_adapted(parsed, lora_request), use_tqdm)

    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: LoraRequests = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation (a list of OpenAI messages) or a list of them.

        Args:
            chat_template: jinja, instead of the model's own.
            chat_template_content_format: "auto" only: the template itself shows which form of content it takes.

        Raises:
            SensoriumError: one of them is wrong; the others are aborted.
        """
        if chat_template_content_format != "auto":
            raise InvalidRequest(
                f"chat_template_content_format is {chat_template_content_format!r}; only 'auto' is served: the "
                "template itself shows which form of content it takes.",
                param="chat_template_content_format",
            )
        if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
            raise InvalidRequest("messages must be a list of messages, or a list of such lists.", param="messages")
        single = len(messages) > 0 and isinstance(messages[0], Mapping)
        several = [messages] if single else messages
        template = {
            "chat_template": chat_template,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "tools": tools,
            "chat_template_kwargs": chat_template_kwargs or {},
            "mm_processor_kwargs": mm_processor_kwargs or {},
        }
        parsed = [
            from_messages(conversation, self._settings.name, self._next_id(), sampling, **template)
            for conversation, sampling in zip(several, self._samplings(sampling_params, len(several)), strict=True)
        ]
        return self._run(_adapted(parsed, lora_request), use_tqdm)

    def stream(
        self, messages: Sequence[Mapping[str, Any]], sampling_params: SamplingParams | None = None
    ) -> Generator[str, None, None]:
        """Answer one conversation, piece by piece. Closing the iterator aborts the answer.

        Raises:
            SensoriumError: the request is wrong, or failed.
        """
        sampling = self._samplings(sampling_params, 1)[0]
        parsed = from_messages(messages, self._settings.name, self._next_id(), sampling)
        with closing(self.stream_events(parsed)) as events:
            for event in events:
                if isinstance(event, Delta) and event.text and event.index == 0:
                    yield event.text

    def stream_events(self, parsed: Parsed) -> Generator[Event, None, None]:
        """Run a request and yield its events, `Started` first. Closing the iterator aborts it.

        Raises:
            SensoriumError: the request is wrong, or failed.
        """
        self._check_open()
        come: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()

        async def produce() -> None:
            try:
                async with aclosing(self._events(parsed)) as events:
                    async for event in events:
                        come.put(event)
                come.put(None)
            except BaseException as error:
                come.put(error)
                raise

        producing = self._loop.start(produce())
        try:
            while (event := come.get()) is not None:
                if isinstance(event, asyncio.CancelledError):
                    raise SensoriumError(CLOSED)
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            producing.cancel()

    def get_tokenizer(self) -> AutoTokenizer:
        """Return the model's tokenizer, with the methods that transformers' have."""
        from sensorium.auto_tokenizer import AutoTokenizer  # here, because it imports tokenizers
        from sensorium.prompt.template import ChatTemplate

        tokenizer: Tokenizer = self._handle.model.tokenizer  # type: ignore[attr-defined]
        template = ChatTemplate.load(Path(self.info.path), self._settings.chat_template, tokenizer)
        return AutoTokenizer(tokenizer, template)

    def get_default_sampling_params(self) -> SamplingParams:
        """Return SamplingParams() with the defaults that come with the model."""
        return SamplingParams(**self._handle.info.default_sampling)

    def close(self) -> None:
        """Free the model. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        try:
            self._handle.close()
        finally:
            self._loop.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def _next_id(self) -> str:
        return f"offline-{next(self._ids)}"

    def _samplings(self, given: SamplingParams | Sequence[SamplingParams] | None, count: int) -> list[SamplingParams]:
        if given is None:
            given = self.get_default_sampling_params()
        if isinstance(given, SamplingParams):
            return [given.clone()] * count  # the caller's may be changed while it is used
        check_sampling(given)
        if len(given) != count:
            raise InvalidRequest(
                f"There are {len(given)} sampling_params for {count} prompts; give one, or one for each.",
                param="sampling_params",
            )
        return [each.clone() for each in given]

    def _run(self, requests: list[Parsed], use_tqdm: bool) -> list[RequestOutput]:
        async def run() -> list[RequestOutput]:
            together = asyncio.Semaphore(_MAX_TOGETHER)

            async def one(parsed: Parsed) -> RequestOutput:
                async with together, aclosing(self._events(parsed)) as events:
                    output = fold(parsed.request.id, [event async for event in events])
                progress.advance(task)
                return output

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(parsed)) for parsed in requests]
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
            return [task.result() for task in tasks]

        with Bar("Answering", len(requests), shown=use_tqdm) as (progress, task):
            return self._wait(run())

    def _events(self, parsed: Parsed) -> AsyncGenerator[Any, None]:
        return way.stream(parsed, self._pool, fetch_media, self._settings.media)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._check_open()
        except SensoriumError:
            work.close()
            raise
        return self._loop.wait(work)

    def _check_open(self) -> None:
        if self._closed:
            raise SensoriumError("This LLM is closed; make another.")


def _chosen() -> LocalLoader:
    from sensorium.worker.engines import ChosenModel  # here, because it imports torch

    return ChosenModel.load


def _adapted(requests: list[Parsed], lora_request: LoraRequests) -> list[Parsed]:
    adapters = adapters_of(lora_request, len(requests))
    return [
        replace(parsed, request=replace(parsed.request, adapter=adapter)) if adapter else parsed
        for parsed, adapter in zip(requests, adapters, strict=True)
    ]


def _close_if_alive(llm: weakref.ref[LLM]) -> None:
    alive = llm()
    if alive is not None:
        alive.close()
