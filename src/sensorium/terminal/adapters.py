"""Where the commands hand over adapters: each form of starting a server ends in `with_adapters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from sensorium.lora.folder import DEFAULT_NAME
from sensorium.settings import EngineSettings


class Adapter(NamedTuple):
    """One adapter: the name it answers to, and its folder."""

    name: str
    folder: str


def with_adapters(settings: EngineSettings, adapters: Sequence[Adapter], *, merge: bool) -> EngineSettings:
    """Return settings of a model that has these adapters beside those it has.

    Args:
        adapters: the one named DEFAULT_NAME also answers under the model's own name, as the clients of ms-swift,
            which ask for the first model of the list, expect.
        merge: add that one to the weights once, in a folder beside it; the result is then the model.

    Raises:
        ConfigurationError: it could not be merged.
    """
    modules = {adapter.name: adapter.folder for adapter in adapters}
    own = modules.get(DEFAULT_NAME)
    if own is not None and merge:
        from sensorium.terminal.merge import merged_model  # here, because it imports rich

        del modules[DEFAULT_NAME]
        merged = merged_model(own, settings.model, settings.revision, settings.hub)
        settings = msgspec.structs.replace(settings, model=merged)
    elif own is not None:
        settings = msgspec.structs.replace(settings, lora=own)
    return msgspec.structs.replace(settings, lora_modules={**modules, **settings.lora_modules})
