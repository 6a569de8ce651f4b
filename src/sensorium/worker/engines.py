"""Which engine kind loads a checkpoint: `native` where a family of ours serves it, else `transformers`."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from sensorium import families
from sensorium.errors import SensoriumError
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
        name, lora = settings.name or settings.model, settings.lora
        if is_adapter(settings.model):
            settings, lora = msgspec.structs.replace(settings, model=base_of(settings.model)), settings.model
        path = resolve(settings.model, settings.revision, on_progress, settings.hub)
        found = msgspec.structs.replace(settings, model=str(path), name=name, lora=lora)
        load: LocalLoader = NativeModel.load
        if wants_library(settings, read_json(path / "config.json")):
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
