"""Which engine kind loads a model: the one asked for, else `native` where a family serves it, else `transformers`."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from sensorium import families
from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.families.family import Config
from sensorium.lora.folder import base_of, is_adapter
from sensorium.registry.hub import resolve
from sensorium.settings import EngineSettings
from sensorium.types import Event
from sensorium.worker.checkpoint import read_json
from sensorium.worker.local import LocalLoader
from sensorium.worker.loop import exit_process
from sensorium.worker.native import NativeModel
from sensorium.worker.process import Model

log = logging.getLogger(__name__)


class ChosenModel:
    """Loads a model with the engine kind that the settings ask for, or that fits."""

    @staticmethod
    def load(
        settings: EngineSettings,
        *,
        on_progress: Callable[[str, float], None],
        on_events: Callable[[list[Event]], None],
        on_failed: Callable[[str, SensoriumError], None],
        on_dead: Callable[[], None] = exit_process,
    ) -> Model:
        """Read a checkpoint and make it ready to answer.

        Raises:
            ConfigurationError: the checkpoint or a setting cannot be used; the message says what to change.
        """
        if settings.engine == "remote":  # its model is a name elsewhere, and no checkpoint
            from sensorium.upstream.remote import RemoteModel  # here, as below: only who needs a library imports it

            remote = msgspec.structs.replace(settings, name=settings.name or settings.model)
            return RemoteModel.load(
                remote, on_progress=on_progress, on_events=on_events, on_failed=on_failed, on_dead=on_dead
            )
        if foreign := [field for field in ("base_url", "api_key") if getattr(settings, field)]:
            raise ConfigurationError(f"{foreign[0]} belongs to the engine remote (--engine remote); leave it out.")
        if settings.engine != "vllm" and settings.engine_args:
            name = next(iter(settings.engine_args))
            raise ConfigurationError(
                f"engine_args has {name!r}, but they are options of the engines vllm and remote; leave it out."
            )
        if settings.engine != "vllm" and settings.tensor_parallel_size > 1:
            raise ConfigurationError(
                "tensor_parallel_size above 1 needs the engine vllm: else a model runs on one device."
            )
        name, lora = settings.name or settings.model, settings.lora
        if is_adapter(settings.model):
            settings, lora = msgspec.structs.replace(settings, model=base_of(settings.model)), settings.model
        path = resolve(settings.model, settings.revision, on_progress, settings.hub)
        found = msgspec.structs.replace(settings, model=str(path), name=name, lora=lora)
        load: LocalLoader = NativeModel.load
        if settings.engine == "vllm":
            from sensorium.upstream.vllm import VllmModel

            load = VllmModel.load
        elif wants_library(settings, read_json(path / "config.json")):
            from sensorium.hf.load import LibraryModel  # here, because importing transformers takes seconds

            load = LibraryModel.load
        return load(found, on_progress=on_progress, on_events=on_events, on_failed=on_failed, on_dead=on_dead)


def wants_library(settings: EngineSettings, config: Config) -> bool:
    """Whether a checkpoint goes to the engine `transformers`; the log tells where that was our choice."""
    if settings.engine != "auto":
        return settings.engine == "transformers"
    architectures = config.get("architectures")
    if families.serves(config) or not isinstance(architectures, list) or not architectures:
        return False  # without an architecture no engine could do anything; the native one says so
    log.warning(
        "No native family serves %s: %r runs on the engine transformers, one request after another.",
        architectures[0],
        settings.name or settings.model,
    )
    return True
