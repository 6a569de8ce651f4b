"""The registry where no server runs: what is registered now is served by the next one that starts."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from sensorium.errors import ConfigurationError, ModelNotFound
from sensorium.protocol.body import parse_body
from sensorium.protocol.model_status import status_body
from sensorium.protocol.registration import RegisterBody
from sensorium.registry.catalog import Catalog
from sensorium.registry.kept import Kept, shown
from sensorium.registry.registration import checked, spec_of
from sensorium.registry.status import ModelStatus


class RegistryFile:
    """The registry itself, with the methods of `RegistryClient` that need no server."""

    def __init__(self, location: str) -> None:
        self._catalog = Catalog(location)

    def all(self) -> list[dict[str, Any]]:
        """Return every registered model."""
        return [_described(kept) for kept in self._catalog.snapshot().kept.values()]

    def one(self, alias: str) -> dict[str, Any]:
        """Return one registered model."""
        kept = self._catalog.snapshot().kept.get(alias)
        if kept is None:
            raise ModelNotFound(f"Nothing is registered as {alias!r}.")
        return _described(kept)

    def register(self, body: dict[str, Any], wait: bool | None) -> dict[str, Any]:
        """Register a model, for servers that start later, or share the database."""
        if wait:
            raise ConfigurationError("No server runs that could load it; leave --wait out, or start `sensorium serve`.")
        wanted = parse_body(RegisterBody, msgspec.json.encode(body))
        spec = checked(spec_of(wanted, trusted=False, created=time.time()))
        if spec.lora_of is not None and spec.lora_of not in self._catalog.snapshot().kept:
            raise ModelNotFound(f"Nothing is registered as {spec.lora_of!r}; register the base first.")
        new = self._catalog.put(spec, replace=bool(wanted.replace)).new
        said = "registered" if new else "already registered"
        return {"status": "success" if new else "exists", "message": f"Model {spec.alias} {said}"}

    def remove(self, alias: str) -> dict[str, Any]:
        """Forget a model."""
        self._catalog.remove(alias)
        return {"status": "success", "message": f"Model {alias} unregistered"}


def _described(kept: Kept) -> dict[str, Any]:
    spec = kept.spec
    status = ModelStatus(
        spec.alias,
        "registered",
        spec.settings.model,
        spec.settings.engine,
        idle_ttl_s=spec.idle_ttl_s,
        pinned=spec.pinned,
        lora_of=spec.lora_of,
    )
    source = kept.source or "registry"
    return {"id": spec.alias, **status_body(status), "source": source, "registered": shown(spec)}
