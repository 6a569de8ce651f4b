"""Hand out a checkpoint's tensors by name, check their shapes, and notice what nobody took."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sensorium.errors import ConfigurationError
from sensorium.model.lora import Sites


class Taker:
    """Takes each tensor once; `part` ("decoder", "vision tower") is named in errors.

    Attributes:
        sites: where the linear layers went that adapters may change; whoever makes one of the tensors notes it here.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], part: str) -> None:
        self._weights = dict(weights)
        self._part = part
        self.sites = Sites()

    def __call__(self, name: str, *shape: int) -> torch.Tensor:
        """Return tensor `name`.

        Raises:
            ConfigurationError: it is missing, or its shape is not `shape`.
        """
        tensor = self._weights.pop(name, None)
        if tensor is None:
            raise ConfigurationError(f"The checkpoint has no tensor {name!r} for the {self._part}; is a shard missing?")
        if tuple(tensor.shape) != shape:
            raise ConfigurationError(
                f"Tensor {name!r} of the {self._part} has shape {tuple(tensor.shape)}; config.json asks for {shape}."
            )
        return tensor

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def reshaped(self, name: str, *shape: int) -> torch.Tensor:
        """Return tensor `name` without its axes of length one, as `shape`, which may have such axes of its own.

        Raises:
            ConfigurationError: as for a call.
        """
        if name in self._weights:
            tensor = self._weights[name].squeeze()
            if tuple(tensor.shape) == tuple(size for size in shape if size != 1):
                self._weights[name] = tensor.view(shape)
        return self(name, *shape)

    def optional(self, name: str) -> torch.Tensor | None:
        """Return tensor `name`, or None where the checkpoint has none."""
        return self._weights.pop(name, None)

    def check_empty(self) -> None:
        """Complain about what is left over.

        Raises:
            ConfigurationError: tensors are left; the message names the first five.
        """
        if self._weights:
            names = sorted(self._weights)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ConfigurationError(
                f"The checkpoint has tensors which the {self._part} of this architecture does not use: "
                f"{', '.join(names[:5])}{more}."
            )
