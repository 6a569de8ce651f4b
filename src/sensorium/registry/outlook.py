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
    ours = settings.engine != "transformers"
    length = known.max_model_len or _length(config, native=ours and families.serves(config))
    media = families.media(config) if ours else None  # what the other engine takes is its processor's to say
    return msgspec.structs.replace(known, media=media, max_model_len=length)


def _length(config: Mapping[str, Any], *, native: bool) -> int | None:
    """How long a context the checkpoint was made for."""
    parts = (config, config.get("text_config"), config.get("llm_config"))
    text = next((p for p in parts if isinstance(p, Mapping) and isinstance(p.get("max_position_embeddings"), int)), {})
    try:
        return context_length(text) if text and native else text.get("max_position_embeddings")
    except SensoriumError:
        return None  # loading says what is wrong
