"""The offline API: a model in this process, asked without a server. Names are vLLM's."""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import logging
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sensorium import way
from sensorium.errors import InvalidRequest, ModelNotFound, SensoriumError
from sensorium.inputs import Prompt, check_sampling, from_messages, from_prompt, prompt_list
from sensorium.llm_options import engine_settings
from sensorium.lora.request import LoraRequests, adapters_of
from sensorium.media.fetch import fetch_media
from sensorium.outputs import RequestOutput, fold
from sensorium.protocol.parsed import Parsed
from sensorium.types import Adapter, Delta, ModelInfo, SamplingParams
from sensorium.worker.local import LocalHandle, LocalLoader
from sensorium.worker.malloc import keep_freed_memory

if TYPE_CHECKING:
    from sensorium.prompt.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_MAX_TOGETHER = 512  # requests handed to the engine at once; their pictures are in memory
_CLOSE_S = 10.0

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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm", daemon=True)
        self._thread.start()
        self._ids = itertools.count()
        self._settings = settings
        self._closed = False
        try:
            with _Bar("Loading", 1.0) as (progress, task):

                def on_progress(phase: str, fraction: float) -> None:
                    progress.update(task, description=f"Loading: {phase}", completed=fraction)

                self._handle = self._wait(LocalHandle.load(_loader or _chosen(), settings, on_progress))
        except BaseException:
            self._stop_loop()
            self._closed = True
            raise
        self._pool = _OneModel(self._handle)
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
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation (a list of OpenAI messages) or a list of them.

        Raises:
            SensoriumError: one of them is wrong; the others are aborted.
        """
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
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

        async def produce() -> None:
            try:
                async with aclosing(self._events(parsed)) as events:
                    async for event in events:
                        if isinstance(event, Delta) and event.text and event.index == 0:
                            pieces.put(event.text)
                pieces.put(None)
            except BaseException as error:
                pieces.put(error)
                raise

        producing = asyncio.run_coroutine_threadsafe(produce(), self._loop)
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            producing.cancel()

    def get_tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer."""
        return cast("Tokenizer", self._handle.model.tokenizer)  # type: ignore[attr-defined]

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
            self._stop_loop()

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
            return [given] * count
        check_sampling(given)
        if len(given) != count:
            raise InvalidRequest(
                f"There are {len(given)} sampling_params for {count} prompts; give one, or one for each.",
                param="sampling_params",
            )
        return list(given)

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

        with _Bar("Answering", len(requests), shown=use_tqdm) as (progress, task):
            return self._wait(run())

    def _events(self, parsed: Parsed) -> AsyncGenerator[Any, None]:
        return way.stream(parsed, self._pool, fetch_media, self._settings.media)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise SensoriumError("This LLM is closed; make another.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_S)
            self._loop.close()


class _OneModel:
    """Lends the one model to `way.stream`. Requests bring their adapters themselves."""

    def __init__(self, handle: LocalHandle) -> None:
        self._handle = handle

    def adapter(self, name: str) -> Adapter | None:
        return None

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncGenerator[LocalHandle, None]:
        if name != self._handle.info.name:
            raise ModelNotFound(f"The model {name!r} does not exist.", param="model")
        yield self._handle


def _chosen() -> LocalLoader:
    from sensorium.worker.engines import ChosenModel  # here, because it imports torch

    return ChosenModel.load


def _adapted(requests: list[Parsed], lora_request: LoraRequests) -> list[Parsed]:
    adapters = adapters_of(lora_request, len(requests))
    return [
        replace(parsed, request=replace(parsed.request, adapter=adapter)) if adapter else parsed
        for parsed, adapter in zip(requests, adapters, strict=True)
    ]


class _Bar:
    """A progress bar on a terminal's standard error, nothing elsewhere."""

    def __init__(self, what: str, total: float, shown: bool = True) -> None:
        console = Console(stderr=True)
        count = () if total == 1.0 else (MofNCompleteColumn(),)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *count,
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> tuple[Progress, Any]:
        self._progress.start()
        return self._progress, self._task

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()


def _close_if_alive(llm: weakref.ref[LLM]) -> None:
    alive = llm()
    if alive is not None:
        alive.close()
