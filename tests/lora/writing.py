"""Random adapters in PEFT's layout, written without PEFT, and bases into which they are merged by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

RANK, ALPHA = 4, 12


def write_adapter(
    path: Path,
    base: Path,
    modules: Iterable[str],
    *,
    seed: int = 0,
    prefix: str = "",
    strength: float = 0.3,
    **config: Any,
) -> Path:
    """Write an adapter for the layers `modules` of the checkpoint `base` (names of its tensors, without .weight).

    Args:
        prefix: put before every name, as training with other classes would.
        strength: how far the factors move the answers.
    """
    path.mkdir(parents=True, exist_ok=True)
    weights = _weights(base)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in modules:
        rows, columns = weights[f"{module}.weight"].shape
        name = f"base_model.model.{prefix}{module}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator) / columns**0.5
        tensors[f"{name}.lora_B.weight"] = strength * torch.randn(rows, RANK, generator=generator)
    save_file(tensors, path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": str(base)}
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    return path


def merge_by_hand(base: Path, adapter: Path, output: Path, scale: float = ALPHA / RANK) -> Path:
    """Write W + scale * B @ A under the base's own names."""
    shutil.copytree(base, output)
    weights = load_file(base / "model.safetensors")
    factors = load_file(adapter / "adapter_model.safetensors")
    for name, down in factors.items():
        if name.endswith("lora_A.weight"):
            up = factors[name.replace("lora_A", "lora_B")]
            weight = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            weights[weight] = weights[weight] + scale * up @ down
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
    return output


def decoder_layers(base: Path, *ends: str) -> list[str]:
    """Names of the checkpoint's linear layers that end so, towers excluded."""
    found = [name.removesuffix(".weight") for name, tensor in _weights(base).items() if tensor.ndim == 2]
    return [
        name
        for name in found
        if name.endswith(ends) and not any(tower in name for tower in ("visual.", "vision_", "vpm.", "audio_tower."))
    ]


def _weights(base: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, of whatever number of files."""
    return {name: tensor for file in sorted(base.glob("*.safetensors")) for name, tensor in load_file(file).items()}
