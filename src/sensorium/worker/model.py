"""A loaded model: prepares requests on threads of its own, runs them in an engine's loop, and reports what comes.

Engine kinds differ in what they load, in how a prompt becomes an engine's input, and in what runs a step; all
else about a model is here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

import torch

from sensorium.engine.sequence import Prompt
from sensorium.errors import ConfigurationError, InvalidRequest, SensoriumError
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import Adapter, Event, ModelInfo, Request
from sensorium.worker.adapters import Adapters
from sensorium.worker.frames import Tokens
from sensorium.worker.loop import EngineLoop, Steps
from sensorium.worker.openmp import single_threaded_pool
from sensorium.worker.system_message import with_system

log = logging.getLogger(__name__)
_NUM_PREPARING = 2  # requests tokenized and decoded at once, beside the engine's thread


class Builder(Protocol):
    """Turns requests into what the engine runs; called from several threads at once."""

    def build(self, request: Request, *, force_decode: bool = False, bounded: bool = True) -> tuple[Prompt, str]:
        """Return the engine's prompt and the rendered text. Not `bounded`: whatever its length.

        Raises:
            InvalidRequest: the prompt is empty, too long, or a media item cannot be used.
        """


class LoadedModel:
    """A model in this process. Results come by callbacks, from other threads.

    Args:
        counters: what `beat` tells about the engine.
        seed: of requests that bring none; None: a new one for each.
        num_threads: cores the engine computes on.
        end_texts: texts that end an answer.
        adapters: what `builder` takes them from; None: this engine kind runs none.
        system: the first message of conversations that bring no system message; None: there is none.
    """

    def __init__(
        self,
        info: ModelInfo,
        tokenizer: Tokenizer,
        builder: Builder,
        engine: Steps,
        media_decoder: MediaDecoder | None,
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        eos_token_ids: frozenset[int],
        on_dead: Callable[[], None],
        counters: Callable[[], dict[str, float]],
        seed: int | None = None,
        num_threads: int = 1,
        end_texts: tuple[str, ...] = (),
        adapters: Adapters | None = None,
        system: str | None = None,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._builder, self._media_decoder, self._counters = builder, media_decoder, counters
        self._on_failed, self._system, self._adapters = on_failed, system, adapters
        self._pool = single_threaded_pool(_NUM_PREPARING, "prepare")
        self._preparing: dict[str, Request] = {}  # until the engine has taken them
        self._lock = threading.Lock()
        self._loop = EngineLoop(
            engine,
            tokenizer,
            eos_token_ids=eos_token_ids,
            max_model_len=info.max_model_len,
            seed=seed,
            on_events=on_events,
            on_failed=on_failed,
            on_begun=self._forget,
            prepare_again=self._prepare_again,
            on_dead=on_dead,
            on_start=lambda: torch.set_num_threads(num_threads),
            end_texts=end_texts,
        )
        self._loop.start()

    def generate(self, request: Request) -> None:
        """Start a request and return; its events come by `on_events`, its failure by `on_failed`.

        Raises:
            InvalidRequest: it wants an adapter, and this engine kind runs none.
        """
        if request.adapter is not None and self._adapters is None:
            raise InvalidRequest(no_adapters().message, param="model")
        with self._lock:
            self._preparing[request.id] = request
        self._pool.submit(self._prepare, request, False)

    def abort(self, request_id: str) -> None:
        """Forget a request; nothing more is reported for it."""
        with self._lock:
            self._preparing.pop(request_id, None)
        self._loop.abort(request_id)

    def tokenize(self, request: Request) -> Tokens:
        """Build a prompt without running it: its ids are those the model would see, pictures included.

        Raises:
            InvalidRequest: as for `generate`, but for the length.
        """
        prompt, text = self._builder.build(with_system(request, self._system), bounded=False)
        strings = [self.tokenizer.token_string(token_id) for token_id in prompt.token_ids]
        return Tokens(request.id, prompt.token_ids, text, strings, prompt.media)

    def detokenize(self, token_ids: list[int]) -> Tokens:
        """Turn ids into text, control tokens included.

        Raises:
            InvalidRequest: an id is not in the vocabulary.
        """
        wrong = next((i for i in token_ids if not 0 <= i < self.tokenizer.vocab_size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"tokens has the id {wrong}; this model's ids are 0 to {self.tokenizer.vocab_size - 1}.", param="tokens"
            )
        return Tokens("", token_ids, self.tokenizer.decode(token_ids, skip_special_tokens=False))

    def load_adapter(self, adapter: Adapter) -> None:
        """Read an adapter's files, anew if they were read before.

        Raises:
            ConfigurationError: they do not fit the model, or cannot be read.
        """
        if self._adapters is None:
            raise no_adapters()
        self._adapters.load(adapter)

    def unload_adapter(self, name: str) -> None:
        """Put an adapter away; answers that use it go on."""
        if self._adapters is not None:
            self._adapters.unload(name)

    def sleep(self) -> None:
        """Give back memory that `wake` can take again.

        Raises:
            InvalidRequest: this engine kind has no such state.
        """
        raise InvalidRequest(f"The engine {self.info.engine} cannot sleep; unload the model instead.")

    def wake(self) -> None:
        """Undo `sleep`."""

    def beat(self) -> tuple[int, dict[str, float]]:
        """Turns of the engine's loop (they advance while idle too) and its counters."""
        return self._loop.turns, self._counters()

    def close(self) -> None:
        """Stop the engine and the decoding child."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loop.close()
        if self._media_decoder is not None:
            self._media_decoder.close()

    def _prepare_again(self, request: Request) -> None:
        with self._lock:
            if self._preparing.get(request.id) is request:  # else it was aborted while it waited for the engine
                self._pool.submit(self._prepare, request, True)

    def _prepare(self, request: Request, force_decode: bool) -> None:
        with self._lock:
            if self._preparing.get(request.id) is not request:
                return  # aborted while it waited for its turn
        try:
            prompt, text = self._builder.build(with_system(request, self._system), force_decode=force_decode)
        except SensoriumError as error:
            self._fail(request, error)
        except Exception:
            log.exception("Preparing request %s failed", request.id)
            self._fail(request, SensoriumError("The request could not be prepared; the log says why."))
        else:
            with self._lock:  # an abort comes either before this, and is seen here, or after the submit
                if self._preparing.get(request.id) is request:
                    self._loop.submit(request, prompt, text)

    def _fail(self, request: Request, error: SensoriumError) -> None:
        if self._forget(request):
            self._on_failed(request.id, error)

    def _forget(self, request: Request) -> bool:
        """Return whether it was still wanted. After an abort its id may belong to another request."""
        with self._lock:
            if self._preparing.get(request.id) is not request:
                return False
            del self._preparing[request.id]
            return True


def no_adapters() -> ConfigurationError:
    """Return what to say where an engine kind runs no adapters."""
    return ConfigurationError(
        "The engine transformers runs no adapters beside the weights; merge yours: `sensorium merge-lora ADAPTER`."
    )
