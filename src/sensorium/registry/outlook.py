"""What can be said of a model before it is loaded: what its config.json tells, read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from sensorium import families
from sensorium.errors import SensoriumError
from sensorium.families.context import context_length
from sensorium.registry.hub import on_this_machine
from sensorium.settings import EngineSettings
from sensorium.types import Outlook


def outlook(settings: EngineSettings) -> Outlook:
    """Read config.json, if it is on this machine; a hub model that was never downloaded has none yet."""
    known = Outlook(max_model_len=settings.max_model_len, limit_mm_per_prompt=settings.limit_mm_per_prompt)
    if settings.engine == "remote":
        return known  # the model is elsewhere, whatever a folder of that name here may hold
    folder = on_this_machine(settings.model, settings.revision, settings.hub)
    if folder is None:
        return known
    known = msgspec.structs.replace(known, path=str(folder))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return known  # loading says what is wrong
    if not isinstance(config, dict):
        return known
    media = None if settings.engine == "transformers" else families.media(config)  # its processor says what it takes
    return msgspec.structs.replace(known, media=media, max_model_len=known.max_model_len or made_for(settings, config))


def made_for(settings: EngineSettings, config: Mapping[str, Any]) -> int | None:
    """Return how long a context the checkpoint was made for, as the engine that will run it has it."""
    parts = (config.get("text_config"), config.get("llm_config"), config)
    text = next((p for p in parts if isinstance(p, Mapping) and isinstance(p.get("max_position_embeddings"), int)), {})
    native = settings.engine != "transformers" and families.serves(config)
    try:
        return context_length(text) if text and native else text.get("max_position_embeddings")
    except SensoriumError:
        return None  # loading says what is wrong
