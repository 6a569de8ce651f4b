"""Engine kind `native`: one loaded model, ours from the file to the token."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sensorium import families
from sensorium.cores import default_threads
from sensorium.engine.engine import Engine
from sensorium.errors import ModelUnavailable, SensoriumError
from sensorium.families.checkpoint import FILES, Checkpoint
from sensorium.families.family import Config, Encoder, Family, Processor
from sensorium.lora.fit import fit
from sensorium.lora.folder import DEFAULT_NAME
from sensorium.lora.tensors import read_adapter
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.model.decoder import Decoder
from sensorium.model.lora import Lora
from sensorium.model.weights import load_weights, pick_dtype
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.registry.hub import resolve
from sensorium.settings import EngineSettings
from sensorium.types import Adapter, Event, ModelInfo
from sensorium.worker.adapters import Adapters
from sensorium.worker.checkpoint import (
    eos_token_ids,
    pick_device,
    read_json,
    sampling_defaults,
    template_folder,
    tokenizer_folder,
)
from sensorium.worker.loop import exit_process
from sensorium.worker.model import LoadedModel
from sensorium.worker.openmp import engine_team
from sensorium.worker.prompting import PromptBuilder
from sensorium.worker.sizing import plan_memory
from sensorium.worker.tower import find_tower

# About a million pixels, what Qwen's own processor class takes as its default; of a video, twice that.
_CPU_TOKENS = {"image": 1280, "video": 2560}


class NativeModel(LoadedModel):
    """A model served by the package's own engine."""

    _engine: Engine

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
        path = resolve(settings.model, settings.revision, on_progress, settings.hub)
        config = read_json(path / "config.json")
        family = families.find(config)
        tower = find_tower(family, config, path, on_progress)
        config = tower.config if tower else config
        device = pick_device(settings.device)
        dtype = pick_dtype(settings.dtype, config, device)
        num_threads = settings.num_threads or default_threads()
        torch.set_num_threads(num_threads)
        # The decoding child starts while weights are read.
        media_decoder = MediaDecoder(settings.media) if family.media else None
        if media_decoder is not None:
            media_decoder.start()  # that for videos starts with the first one
        weights = load_weights(path, family.rename, dtype, device, on_progress)
        if tower:
            tower.add_weights(weights, dtype, device, on_progress)
        weights_bytes = sum(tensor.nbytes for part in weights.values() for tensor in part.values())
        on_progress("packing weights", 0.0)
        with torch.inference_mode():
            tensors = weights.pop("decoder")
            decoder = Decoder(family.decoder(config), family.convert(config, tensors) if family.convert else tensors)
            del tensors  # packed by now
            encoders = {name: make(config, dtype, device) for name, make in family.encoders.items()}
            for name, encoder in encoders.items():
                encoder.load(weights.pop(name, {}))
        adapters = _adapters(settings, family, config, decoder, encoders)
        plan = plan_memory(settings, decoder)
        engine = Engine(decoder, encoders, plan.limits, engine_team(num_threads, device))
        tokenizer_path = tokenizer_folder(path, settings)
        tokenizer = Tokenizer.load(tokenizer_path, family.cut_at)
        files = _read_files(path) | (_read_files(tower.path) if tower else {})
        generation = read_json(path / "generation_config.json", missing={})
        chat_format = family.chat_formats.get(str(generation.get("chat_format")))
        checkpoint = Checkpoint(config, files, tokenizer.encode)
        builder = PromptBuilder(
            family,
            checkpoint,
            tokenizer,
            _template(template_folder(path, tokenizer_path), settings, family, tokenizer, chat_format),
            _processors(family, checkpoint, settings, plan.max_model_len),
            media_decoder,
            engine.encoder_cache,
            vocab_size=decoder.config.vocab_size,
            max_model_len=plan.max_model_len,
            processor_options=settings.mm_processor_kwargs,
            media_limits=settings.media,
            adapters=adapters,
        )
        info = ModelInfo(
            name=settings.name or settings.model,
            family=family.name,
            path=str(path),
            max_model_len=plan.max_model_len,
            modalities=family.modalities,
            default_sampling=sampling_defaults(generation, settings),
            dtype=str(dtype).removeprefix("torch."),
            device=str(device),
            weights_bytes=weights_bytes,
            kv_cache_tokens=(plan.limits.num_blocks - 1) * plan.limits.block_size,
            load_s=time.monotonic() - started,
            limit_mm_per_prompt=settings.limit_mm_per_prompt,
            media_bounds=builder.media.bounds(),
            adapter=settings.lora,
        )
        eos = eos_token_ids(generation, config, tokenizer, family.end_tokens)
        counters = functools.partial(_counters, engine, builder, adapters)
        model = cls(
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
            family.end_texts,
            system=settings.system,
            adapters=adapters,
        )
        model._engine = engine
        return model

    def sleep(self) -> None:
        """Move the weights off the accelerator and forget the caches."""
        self._loop.call(self._engine.sleep)

    def wake(self) -> None:
        """Undo `sleep`.

        Raises:
            ModelUnavailable: the accelerator has no room for them now.
        """
        try:
            self._loop.call(self._engine.wake)
        except torch.OutOfMemoryError:
            raise ModelUnavailable(f"The accelerator has no room for the model {self.info.name!r} now.") from None


def _adapters(
    settings: EngineSettings, family: Family, config: Config, decoder: Decoder, encoders: Mapping[str, Encoder]
) -> Adapters:
    """The model's adapters; those the settings name are read now, so that a broken one is noticed at start."""
    towers = {"decoder": decoder.sites} | {name: encoder.sites for name, encoder in encoders.items()}

    def read(path: str) -> Lora:
        with torch.inference_mode():
            files = read_adapter(Path(path).expanduser())
            return fit(files, family, config, towers, decoder.dtype, decoder.device, settings.max_lora_rank)

    always = Adapter(DEFAULT_NAME, settings.lora) if settings.lora else None
    adapters = Adapters(read, settings.max_loras, always)
    named = [Adapter(name, path) for name, path in settings.lora_modules.items()]
    for adapter in [*named, always] if always else named:
        adapters.load(adapter)
    return adapters


def _counters(engine: Engine, builder: PromptBuilder, adapters: Adapters) -> dict[str, float]:
    scheduler = engine.scheduler
    on_device = torch.cuda.memory_reserved() if engine.decoder.device.type == "cuda" else 0
    return {
        **({"device_bytes": float(on_device)} if on_device else {}),
        "steps": engine.num_steps,
        "threads": engine.team.threads,
        "computed_tokens": engine.num_computed_tokens,
        "requests_running": len(scheduler.running),
        "requests_waiting": len(scheduler.waiting),
        "preemptions": scheduler.num_preemptions,
        "kv_blocks_free": scheduler.pool.num_free,
        "kv_blocks": scheduler.pool.num_usable,
        "encoder_cache_bytes": engine.encoder_cache.num_bytes,
        "media_decoded": builder.media.num_decoded,
        "media_reused": builder.media.num_reused,
        "media_encoded": engine.num_encoded,
        "adapters": adapters.num_kept,
    }


def _read_files(path: Path) -> dict[str, dict[str, Any]]:
    """The checkpoint's files about media, those that are there, by name."""
    return {name: read_json(path / name) for name in FILES if (path / name).is_file()}


def _template(
    path: Path, settings: EngineSettings, family: Family, tokenizer: Tokenizer, fallback: str | None
) -> ChatTemplate:
    """The operator's, else the family's, else the checkpoint's, else `fallback`."""
    if settings.chat_template is None and family.chat_template is not None:
        # Written for the authors' code, which encodes with the bos token where the tokenizer adds one.
        return ChatTemplate(
            {"default": family.chat_template}, tokenizer.special_tokens | {"bos_token": tokenizer.start}
        )
    return ChatTemplate.load(path, settings.chat_template, tokenizer, fallback)


def _processors(
    family: Family, checkpoint: Checkpoint, settings: EngineSettings, max_model_len: int
) -> dict[str, Processor]:
    """The family's, held to items that fit the context, and on a CPU to what it can look at in bearable time."""
    on_cpu = pick_device(settings.device).type == "cpu"
    found: dict[str, Processor] = {}
    for kind, media in family.media.items():
        processor = media.processor(checkpoint)
        chosen = settings.mm_processor_kwargs.keys() & processor.limits({}).keys() - {"min_pixels"}
        most = _CPU_TOKENS.get(kind, max_model_len) if on_cpu and not chosen else max_model_len
        found[kind] = processor.within(min(max_model_len * 3 // 4, most))
    return found
