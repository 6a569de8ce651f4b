"""Where the commands hand over adapters: each form of starting a server ends in `with_adapters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import click

from sensorium.errors import ConfigurationError
from sensorium.settings import EngineSettings

DEFAULT_ADAPTER = "default-lora"  # swift's name for that of --ckpt_dir


class Adapter(NamedTuple):
    """One adapter: the name it answers to, and its folder."""

    name: str
    folder: str


def parse_adapters(entries: Sequence[str]) -> tuple[Adapter, ...]:
    """Read `--lora_modules name=folder ...`.

    Raises:
        UsageError: an entry is not of that form, or a name comes twice.
    """
    found: dict[str, Adapter] = {}
    for entry in entries:
        name, equals, folder = entry.partition("=")
        if not (equals and name and folder):
            raise click.UsageError(f"--lora_modules has {entry!r}; write NAME=FOLDER.")
        if name in found:
            raise click.UsageError(f"--lora_modules names {name!r} twice.")
        found[name] = Adapter(name, folder)
    return tuple(found.values())


def with_adapters(settings: EngineSettings, adapters: Sequence[Adapter], *, merge: bool) -> EngineSettings:
    """Return settings of a model that has these adapters.

    Args:
        adapters: one named DEFAULT_ADAPTER also answers under the model's own name.
        merge: add the adapter to the weights once, at loading; it is then the model.

    Raises:
        ConfigurationError: adapters are not served yet.
    """
    if not adapters:
        return settings
    names = ", ".join(f"{adapter.name} ({adapter.folder})" for adapter in adapters)
    raise ConfigurationError(
        f"Adapters are not served yet: {names}. Merge them into the weights, and give that folder as --ckpt_dir."
    )
