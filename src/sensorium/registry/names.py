"""What the models and adapters of a pool answer to."""

from __future__ import annotations

import difflib

from sensorium.errors import ModelNotFound
from sensorium.registry.adapters import AdapterNames
from sensorium.registry.slot import Slot


class Names:
    """Served names. `models`: name -> model; several names may share one. `adapters`: those of adapters."""

    def __init__(self, models: dict[str, Slot]) -> None:
        self.models = models
        self.adapters = AdapterNames(models)

    def all(self) -> list[str]:
        """Return every name; those of models come first."""
        return [*self.models, *self.adapters]

    def slot(self, name: str) -> Slot:
        """Return the model that answers to a name, an adapter's included.

        Raises:
            ModelNotFound: none does; the message tells near names.
        """
        slot = self.models.get(name) or self.adapters.slot(name)
        if slot is None:
            near = difflib.get_close_matches(name[:200], self.all(), n=3, cutoff=0.4) or self.all()[:3]
            known = ", ".join(map(repr, near)) or "none"
            raise ModelNotFound(f"The model {name[:200]!r} does not exist. Nearest: {known}.", param="model")
        return slot

    def base(self, name: str) -> str | None:
        """Return the first name of an adapter's model; None: `name` is no adapter."""
        slot = self.adapters.slot(name)
        return next((served for served, found in self.models.items() if found is slot), None)
