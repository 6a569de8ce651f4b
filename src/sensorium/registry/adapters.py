"""The names of adapters: which model each belongs to, and loading and unloading them while serving."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sensorium.errors import ConfigurationError, InvalidRequest, ModelNotFound, SensoriumError
from sensorium.registry.slot import Slot
from sensorium.types import Adapter


class AdapterNames:
    """Adapters by name. A name outlives the worker: the next worker reads the adapter when it is asked for.

    Args:
        slots: served name -> model. Adapters in their settings are here from the start.

    Raises:
        ConfigurationError: two things have one name.
    """

    def __init__(self, slots: dict[str, Slot]) -> None:
        self._slots = slots
        self._found: dict[str, tuple[Slot, Adapter]] = {}
        for slot in dict.fromkeys(slots.values()):
            for name, path in slot.settings.lora_modules.items():
                if name in slots or name in self._found:
                    raise ConfigurationError(f"Two models or adapters are called {name!r}; give each its own name.")
                self._found[name] = (slot, Adapter(name, path))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def adapter(self, name: str) -> Adapter | None:
        """Return the adapter of this name; None: there is none."""
        return self._found[name][1] if name in self._found else None

    def slot(self, name: str) -> Slot | None:
        """Return the model of the adapter of this name."""
        return self._found[name][0] if name in self._found else None

    def add(self, adapter: Adapter, slot: Slot) -> None:
        """Let `slot` answer to an adapter's name. It is read when it is first asked for."""
        self._found[adapter.name] = (slot, adapter)

    async def load(self, adapter: Adapter, base: str | None, again: bool) -> None:
        """Let a model read an adapter and answer to its name.

        Args:
            base: a served name; None: the only model.
            again: read the files anew where the name is taken by an adapter.

        Raises:
            InvalidRequest: the name is taken, no base is named, or the files do not fit it.
            ModelNotFound: the model was removed meanwhile.
        """
        taken = self._found.get(adapter.name)
        self._check_free(adapter.name)
        if taken and not again:
            raise InvalidRequest(
                f"The lora adapter '{adapter.name}' has already been loaded. If you want to load the adapter in place, "
                "set 'load_inplace' to True.",
                param="lora_name",
                code="lora_already_loaded",
            )
        slot = taken[0] if taken and base is None else self._base(base)
        try:
            async with slot.use() as handle:
                await handle.load_adapter(adapter)
        except ConfigurationError as error:
            raise InvalidRequest(error.message, param="lora_path", code="lora_invalid") from None
        self._check_free(adapter.name)
        if slot not in self._slots.values():
            raise ModelNotFound(f"The model {slot.name!r} was removed meanwhile.", param="base_model_name")
        self._found[adapter.name] = (slot, adapter)

    async def unload(self, name: str) -> None:
        """Forget an adapter. Answers that use it go on.

        Raises:
            ModelNotFound: there is none of this name.
        """
        if name not in self._found:
            raise ModelNotFound(f"The lora adapter '{name[:200]}' cannot be found.", param="lora_name")
        slot, _ = self._found.pop(name)
        for handle in slot.handles:
            with contextlib.suppress(SensoriumError):  # a worker that is gone took the adapter with it
                await handle.unload_adapter(name)

    def forget(self, slot: Slot) -> None:
        """Forget the adapters of a model that goes. Its workers are not told: they end, with all they read."""
        self._found = {name: found for name, found in self._found.items() if found[0] is not slot}

    def _check_free(self, name: str) -> None:
        if name in self._slots:
            raise InvalidRequest(
                f"The lora adapter name '{name}' conflicts with a served base model.", param="lora_name"
            )

    def _base(self, name: str | None) -> Slot:
        if name in self._slots:
            return self._slots[name]
        several = list(self._slots)
        if name is None and len(set(self._slots.values())) == 1:
            return self._slots[several[0]]
        raise InvalidRequest(
            f"base_model_name must name the model the adapter is for: one of {', '.join(map(repr, several[:5]))}.",
            param="base_model_name",
        )
