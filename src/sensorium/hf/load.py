"""Engine kind `transformers`: one loaded model of that library, asked and answered like a native one."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch

from sensorium.cores import default_threads
from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.hf.context import context_length
from sensorium.hf.engine import OneByOne
from sensorium.hf.library import load_model, load_processor, load_tokenizer, takes_media
from sensorium.hf.processor import PARTS, LibraryProcessor
from sensorium.hf.prompting import LibraryPromptBuilder, find_placeholder
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.media.options import VIDEO_KWARGS
from sensorium.model.weights import pick_dtype
from sensorium.prompt.template import ChatTemplate
from sensorium.registry.hub import resolve
from sensorium.settings import EngineSettings
from sensorium.types import Event, ModelInfo
from sensorium.worker.checkpoint import eos_token_ids, pick_device, read_json, sampling_defaults
from sensorium.worker.loop import exit_process
from sensorium.worker.model import LoadedModel, no_adapters
from sensorium.worker.openmp import engine_team


class LibraryModel(LoadedModel):
    """A model that the transformers library runs."""

    @classmethod
    def load(
        cls,
        settings: EngineSettings,
        *,
        on_progress: Callable[[str, float], None],
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_dead: Callable[[], None] = exit_process,
    ) -> LibraryModel:
        """Read a checkpoint and make it ready to answer.

        Raises:
            ConfigurationError: the library is missing or cannot load it, or a setting cannot be used.
        """
        started = time.monotonic()
        path = resolve(settings.model, settings.revision, on_progress, settings.hub)
        config = read_json(path / "config.json")
        if names := ", ".join(sorted(settings.mm_processor_kwargs.keys() - set(VIDEO_KWARGS))):
            raise ConfigurationError(f"{names} cannot be set with the engine transformers; leave them out.")
        if settings.lora or settings.lora_modules:
            raise no_adapters()
        if settings.tokenizer is not None:
            raise ConfigurationError("A tokenizer of its own cannot be set with the engine transformers; leave it out.")
        on_progress("importing transformers", 0.0)
        multimodal = takes_media(config)
        device = pick_device(settings.device)
        dtype = pick_dtype(settings.dtype, config, device)
        num_threads = settings.num_threads or default_threads()
        torch.set_num_threads(num_threads)
        on_progress("loading weights", 0.0)
        model = load_model(path, config, dtype, device)
        on_progress("loading weights", 1.0)
        processor = load_processor(path, config) if multimodal else None
        tokenizer = load_tokenizer(path, config, processor)
        template = ChatTemplate.load(path, settings.chat_template, tokenizer)
        max_model_len = context_length(settings, model.config, dtype, device)
        media_decoder = MediaDecoder(settings.media) if multimodal else None
        # Before it is wrapped, which changes its tokenizer.
        placeholders: dict[str, str] = {
            kind: find_placeholder(processor, tokenizer, template, kind)
            for kind, part in PARTS.items()
            if getattr(processor, part, None) is not None
        }
        wrapped = LibraryProcessor(processor) if processor is not None else None
        builder = LibraryPromptBuilder(
            tokenizer,
            template,
            wrapped,
            media_decoder,
            placeholders=placeholders,
            vocab_size=model.get_input_embeddings().weight.shape[0],
            max_model_len=max_model_len,
            media_limits=settings.media,
            video_options=settings.mm_processor_kwargs,
        )
        generation = read_json(path / "generation_config.json", missing={})
        info = ModelInfo(
            name=settings.name or settings.model,
            family=str(config.get("model_type") or config["architectures"][0]),
            path=str(path),
            max_model_len=max_model_len,
            modalities=("text", *placeholders),
            default_sampling=sampling_defaults(generation, settings),
            dtype=str(dtype).removeprefix("torch."),
            device=str(device),
            weights_bytes=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
            kv_cache_tokens=max_model_len,
            load_s=time.monotonic() - started,
            engine="transformers",
            limit_mm_per_prompt=settings.limit_mm_per_prompt,
            media_bounds={"audio": {"max_seconds": wrapped.max_seconds}} if wrapped and wrapped.max_seconds else {},
        )
        if media_decoder is not None:
            # Processes: only now that nothing else can fail. That for videos starts with the first one.
            media_decoder.start([kind for kind in placeholders if kind != "video"])
        engine = OneByOne(model, engine_team(num_threads, device))
        eos = eos_token_ids(generation, config, tokenizer)
        counters = functools.partial(_counters, engine, builder)
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
            counters,
            settings.seed,
            num_threads,
            system=settings.system,
        )


def _counters(engine: OneByOne, builder: LibraryPromptBuilder) -> dict[str, float]:
    return {
        "steps": engine.num_steps,
        "computed_tokens": engine.num_computed_tokens,
        "requests_running": engine.num_running,
        "requests_waiting": engine.num_waiting,
        "media_decoded": builder.num_decoded,
    }
