"""A vision tower in a checkpoint of its own, as LLaVA's authors have it: found, and joined to the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.family import Family, Tower
from sensorium.model.weights import load_weights
from sensorium.registry.hub import resolve
from sensorium.worker.checkpoint import read_json

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class FoundTower:
    """A tower's folder, and the main checkpoint's config.json with the tower's as `vision_config`."""

    source: Tower
    path: Path
    config: dict[str, Any]

    def add_weights(
        self,
        weights: dict[str, dict[str, torch.Tensor]],
        dtype: torch.dtype,
        device: torch.device,
        on_progress: Progress,
    ) -> None:
        """Read the tower's tensors into `weights`, the parts of the main checkpoint.

        Raises:
            ConfigurationError: as for `load_weights`.
        """
        for part, tensors in load_weights(self.path, self.source.rename, dtype, device, on_progress).items():
            own = weights.get(part, {})
            weights[part] = tensors | own if self.source.own_first else own | tensors


def find_tower(family: Family, config: dict[str, Any], checkpoint: Path, on_progress: Progress) -> FoundTower | None:
    """Return the tower of the checkpoint in folder `checkpoint`; None where the family has none of its own.

    It is looked for in the checkpoint, beside it, and then on the hub.

    Raises:
        ConfigurationError: it is nowhere; the message says where to place what.
    """
    if family.tower is None:
        return None
    source = family.tower(config)
    path = source.folder(checkpoint) or _from_hub(source, checkpoint, on_progress)
    own = read_json(path / "config.json")
    vision = own.get("vision_config")  # of a whole CLIP, which has a text tower too
    return FoundTower(source, path, {**config, "vision_config": dict(vision if isinstance(vision, Mapping) else own)})


def _from_hub(source: Tower, checkpoint: Path, on_progress: Progress) -> Path:
    try:
        return resolve(source.name, on_progress=on_progress)
    except ConfigurationError as error:
        last = Path(source.name).name
        raise ConfigurationError(
            f"config.json names the vision tower {source.name!r} ({source.key}), a checkpoint of its own, which is "
            f"neither in {checkpoint} nor beside it. Place its folder at {checkpoint / last} (config.json, "
            f"preprocessor_config.json and weights). {error.message}"
        ) from error
