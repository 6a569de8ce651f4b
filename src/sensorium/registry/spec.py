"""A model as it is registered: the name it answers to, how it is loaded, and how long it stays."""

from __future__ import annotations

import msgspec

from sensorium.settings import EngineSettings, Needs

FOREVER = -1.0


class ModelSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the registry keeps of one alias.

    `settings.name` is the alias, `settings.model` the folder or hub id; for `lora_of` the folder of the adapter.
    """

    alias: str
    settings: EngineSettings
    model_name: str = ""  # as it was registered; what routing answers show
    idle_ttl_s: float | None = None  # unused for this long it is unloaded; None: the server's, -1: never, 0: at once
    pinned: bool = False  # never unloaded to make room or for being idle
    preload: bool = False  # loaded as soon as it is registered, and when the server starts
    min_replicas: int = 0
    max_replicas: int = 1
    needs: Needs = Needs()
    lora_of: str | None = None  # alias of the base model; this one is an adapter over it
    created: float = 0.0  # seconds since the epoch
