"""What the registry keeps of a model, and how two registrations of one alias differ. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from sensorium.errors import AlreadyRegistered
from sensorium.registry.spec import ModelSpec
from sensorium.settings import EngineSettings

# Fields of EngineSettings and Needs that have another name on the wire.
WIRE = {
    "model": "model_path",
    "timeout_s": "timeout",
    "kv_cache_bytes": "kv_cache_memory",
    "encoder_cache_bytes": "encoder_cache_memory",
    "idle_ttl_s": "idle_ttl",
    "memory_bytes": "memory",
}
HIDDEN = "***"
_SECRET = {"api_key", "engine_args"}  # engine_args: a token may be among them
_KEYS = ("key", "token", "secret", "password")


class Kept(NamedTuple):
    """A registered model, and the models.toml that it came from; "" where somebody registered it."""

    spec: ModelSpec
    source: str = ""


class Snapshot(NamedTuple):
    """Everything that is registered, by alias, as of the change with this number."""

    revision: int
    kept: dict[str, Kept]


def same(old: ModelSpec, new: ModelSpec) -> bool:
    """Whether registering `new` over `old` would change nothing; when it was registered does not count."""
    return msgspec.structs.replace(old, created=0.0) == msgspec.structs.replace(new, created=0.0)


def differences(old: ModelSpec, new: ModelSpec) -> list[str]:
    """Return what differs, by the names of the wire, each as a phrase; keys are never shown."""
    before, after = _flat(old), _flat(new)
    phrases = []
    for name in before:
        if before[name] != after[name]:
            shown = name not in _SECRET
            values = f" is {before[name]!r} there and {after[name]!r} here" if shown else " differs"
            phrases.append(WIRE.get(name, name) + values)
    return phrases


def already(old: ModelSpec, new: ModelSpec) -> AlreadyRegistered:
    """Return the error of registering something else under an alias that is taken."""
    return AlreadyRegistered(
        f"{old.alias!r} is registered already, and not the same: {'; '.join(differences(old, new))}. Remove it first, "
        'or send "replace": true.',
        param="alias",
    )


def _flat(spec: ModelSpec) -> dict[str, Any]:
    fields = msgspec.structs.asdict(spec)
    del fields["created"], fields["settings"], fields["needs"]
    return {**msgspec.structs.asdict(spec.settings), **msgspec.structs.asdict(spec.needs), **fields}


def shown(spec: ModelSpec) -> dict[str, Any]:
    """Return what was registered, by the names of the wire, without what is as if not said, and without keys."""
    nothing = _flat(ModelSpec("", EngineSettings("")))
    fields = {WIRE.get(name, name): value for name, value in _flat(spec).items() if value != nothing[name]}
    for name in ("name", "media"):  # the alias again; the server's
        fields.pop(name, None)
    if "api_key" in fields:
        fields["api_key"] = HIDDEN
    return {name: _redacted(value) for name, value in fields.items()}


def _redacted(value: Any, secret: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            name: _redacted(each, secret or any(word in name.lower() for word in _KEYS)) for name, each in value.items()
        }
    if isinstance(value, list):
        return [_redacted(each, secret) for each in value]
    return HIDDEN if secret and isinstance(value, str) else value
