"""Engine kind `native`: one loaded model, ours from the file to the token."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sensorium import families
from sensorium.engine.engine import Engine
from sensorium.errors import ConfigurationError, InvalidRequest, SensoriumError
from sensorium.families.checkpoint import FILES, Checkpoint
from sensorium.families.family import Family, Processor
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.model.decoder import Decoder
from sensorium.model.weights import load_weights, pick_dtype
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.registry.hub import resolve
from sensorium.settings import EngineSettings
from sensorium.types import Event, ModelInfo, Request, SamplingParams
from sensorium.worker.frames import Tokens
from sensorium.worker.loop import EngineLoop, exit_process
from sensorium.worker.openmp import single_threaded_pool
from sensorium.worker.prompting import PromptBuilder
from sensorium.worker.sizing import plan_memory

log = logging.getLogger(__name__)
_NUM_PREPARING = 2  # requests tokenized and decoded at once, beside the engine's thread
_CPU_IMAGE_TOKENS = 1280  # about a million pixels; what Qwen's own processor class takes as its default
_SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class NativeModel:
    """A model in this process. Results come by callbacks, from other threads."""

    def __init__(
        self,
        info: ModelInfo,
        tokenizer: Tokenizer,
        builder: PromptBuilder,
        engine: Engine,
        media_decoder: MediaDecoder | None,
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        eos_token_ids: frozenset[int],
        on_dead: Callable[[], None],
        seed: int | None = None,
        num_threads: int = 1,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._builder, self._engine, self._media_decoder = builder, engine, media_decoder
        self._on_failed = on_failed
        self._pool = single_threaded_pool(_NUM_PREPARING, "prepare")
        self._preparing: set[str] = set()
        self._lock = threading.Lock()
        self._loop = EngineLoop(
            engine,
            tokenizer,
            eos_token_ids=eos_token_ids,
            max_model_len=info.max_model_len,
            seed=seed,
            on_events=on_events,
            on_failed=on_failed,
            prepare_again=lambda request: self._submit(request, force_decode=True),
            on_dead=on_dead,
            on_start=lambda: torch.set_num_threads(num_threads),
        )
        self._loop.start()

    @classmethod
    def load(
        cls,
        settings: EngineSettings,
        *,
        on_progress: Callable[[str, float], None],
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_dead: Callable[[], None] = exit_process,
    ) -> NativeModel:
        """Read a checkpoint and make it ready to answer.

        Raises:
            ConfigurationError: the checkpoint or a setting cannot be used; the message says what to change.
        """
        started = time.monotonic()
        path = resolve(settings.model, settings.revision, on_progress)
        config = _read_json(path / "config.json")
        family = families.find(config)
        device = _pick_device(settings.device)
        dtype = pick_dtype(settings.dtype, config, device)
        num_threads = settings.num_threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(num_threads)
        # The decoding child starts while weights are read.
        media_decoder = MediaDecoder(settings.media) if family.media else None
        if media_decoder is not None:
            media_decoder.start()
        weights = load_weights(path, family.rename, dtype, device, on_progress)
        weights_bytes = sum(tensor.nbytes for part in weights.values() for tensor in part.values())
        on_progress("packing weights", 0.0)
        with torch.inference_mode():
            tensors = weights.pop("decoder")
            decoder = Decoder(family.decoder(config), family.convert(config, tensors) if family.convert else tensors)
            del tensors  # packed by now
            encoders = {name: make(config, dtype, device) for name, make in family.encoders.items()}
            for name, encoder in encoders.items():
                encoder.load(weights.pop(name, {}))
        plan = plan_memory(settings, decoder)
        engine = Engine(decoder, encoders, plan.limits)
        tokenizer = Tokenizer.load(path)
        checkpoint = Checkpoint(config, _read_files(path), tokenizer.encode)
        builder = PromptBuilder(
            family,
            checkpoint,
            tokenizer,
            ChatTemplate.load(path, settings.chat_template, tokenizer),
            _processors(family, checkpoint, settings, plan.max_model_len),
            media_decoder,
            engine.encoder_cache,
            vocab_size=decoder.config.vocab_size,
            max_model_len=plan.max_model_len,
            processor_options=settings.mm_processor_kwargs,
        )
        generation = _read_json(path / "generation_config.json", missing={})
        info = ModelInfo(
            name=settings.name or settings.model,
            family=family.name,
            path=str(path),
            max_model_len=plan.max_model_len,
            modalities=family.modalities,
            default_sampling=_default_sampling(generation),
            dtype=str(dtype).removeprefix("torch."),
            device=str(device),
            weights_bytes=weights_bytes,
            kv_cache_tokens=(plan.limits.num_blocks - 1) * plan.limits.block_size,
            load_s=time.monotonic() - started,
            limit_mm_per_prompt=settings.limit_mm_per_prompt,
        )
        eos = _eos_token_ids(generation, config, tokenizer, family.end_tokens)
        return cls(
            info,
            tokenizer,
            builder,
            engine,
            media_decoder,
            on_events,
            on_failed,
            eos,
            on_dead,
            settings.seed,
            num_threads,
        )

    def generate(self, request: Request) -> None:
        """Start a request and return; its events come by `on_events`, its failure by `on_failed`."""
        self._submit(request, force_decode=False)

    def abort(self, request_id: str) -> None:
        """Forget a request; nothing more is reported for it."""
        with self._lock:
            self._preparing.discard(request_id)
        self._loop.abort(request_id)

    def tokenize(self, request: Request) -> Tokens:
        """Build a prompt without running it: its ids are those the model would see, pictures included.

        Raises:
            InvalidRequest: as for `generate`, but for the length.
        """
        prompt, text = self._builder.build(request, bounded=False)
        strings = [self.tokenizer.token_string(token_id) for token_id in prompt.token_ids]
        return Tokens(request.id, prompt.token_ids, text, strings)

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

    def beat(self) -> tuple[int, dict[str, float]]:
        """Turns of the engine's loop (they advance while idle too) and its counters."""
        engine, scheduler = self._engine, self._engine.scheduler
        return self._loop.turns, {
            "steps": engine.num_steps,
            "computed_tokens": engine.num_computed_tokens,
            "requests_running": len(scheduler.running),
            "requests_waiting": len(scheduler.waiting),
            "preemptions": scheduler.num_preemptions,
            "kv_blocks_free": scheduler.pool.num_free,
            "kv_blocks": scheduler.pool.num_usable,
            "encoder_cache_bytes": engine.encoder_cache.num_bytes,
            "media_decoded": self._builder.num_decoded,
            "media_reused": self._builder.num_reused,
        }

    def close(self) -> None:
        """Stop the engine and the decoding child."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loop.close()
        if self._media_decoder is not None:
            self._media_decoder.close()

    def _submit(self, request: Request, force_decode: bool) -> None:
        with self._lock:
            self._preparing.add(request.id)
        self._pool.submit(self._prepare, request, force_decode)

    def _prepare(self, request: Request, force_decode: bool) -> None:
        try:
            prompt, text = self._builder.build(request, force_decode=force_decode)
        except SensoriumError as error:
            self._fail(request.id, error)
        except Exception:
            log.exception("Preparing request %s failed", request.id)
            self._fail(request.id, SensoriumError("The request could not be prepared; the log says why."))
        else:
            with self._lock:  # an abort comes either before this, and is seen here, or after the submit
                if request.id in self._preparing:
                    self._preparing.discard(request.id)
                    self._loop.submit(request, prompt, text)

    def _fail(self, request_id: str, error: SensoriumError) -> None:
        with self._lock:
            wanted = request_id in self._preparing
            self._preparing.discard(request_id)
        if wanted:
            self._on_failed(request_id, error)


def _read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise ConfigurationError(f"{path} is missing; the folder does not hold a complete checkpoint.") from None
    except (ValueError, OSError):
        raise ConfigurationError(f"{path} is not readable JSON.") from None
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} holds no JSON object.")
    return data


def _pick_device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigurationError(f"device {wanted!r} is not known; choose auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device {wanted!r} was asked for, but this torch sees no CUDA device; try cpu.")
    return device


def _read_files(path: Path) -> dict[str, dict[str, Any]]:
    """The checkpoint's files about media, those that are there, by name."""
    return {name: _read_json(path / name) for name in FILES if (path / name).is_file()}


def _processors(
    family: Family, checkpoint: Checkpoint, settings: EngineSettings, max_model_len: int
) -> dict[str, Processor]:
    """The family's, held to items that fit the context, and pictures on a CPU to what it can look at within seconds."""
    on_cpu = _pick_device(settings.device).type == "cpu"
    found: dict[str, Processor] = {}
    for kind, media in family.media.items():
        processor = media.processor(checkpoint)
        chosen = settings.mm_processor_kwargs.keys() & processor.limits({}).keys() - {"min_pixels"}
        most = _CPU_IMAGE_TOKENS if kind == "image" and on_cpu and not chosen else max_model_len
        found[kind] = processor.within(min(max_model_len * 3 // 4, most))
    return found


def _default_sampling(generation: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint's own sampling defaults; do_sample false means greedy, as in transformers."""
    found = {name: generation[name] for name in _SAMPLING_FIELDS if generation.get(name) is not None}
    if generation.get("do_sample") is False:
        found = {name: value for name, value in found.items() if name == "repetition_penalty"} | {"temperature": 0.0}
    try:
        SamplingParams(**found)
    except SensoriumError as error:
        log.warning("generation_config.json is ignored: %s", error)
        return {}
    return found


def _eos_token_ids(
    generation: dict[str, Any], config: dict[str, Any], tokenizer: Tokenizer, end_tokens: tuple[str, ...]
) -> frozenset[int]:
    known = {tokenizer.added_tokens[text] for text in end_tokens if text in tokenizer.added_tokens}
    text = config.get("text_config") or {}
    for value in (generation.get("eos_token_id"), config.get("eos_token_id"), text.get("eos_token_id")):
        if value is not None:
            return frozenset(known.union(value if isinstance(value, list) else [value]))
    return frozenset(known if tokenizer.eos_token_id is None else known | {tokenizer.eos_token_id})
