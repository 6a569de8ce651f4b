"""Merge an adapter into its base: a checkpoint like any other, in the layout of the base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sensorium import families
from sensorium.errors import ConfigurationError
from sensorium.lora.folder import base_of
from sensorium.lora.tensors import AdapterFiles, listed, read_adapter
from sensorium.model.weights import read_tensors, weight_files
from sensorium.registry.hub import resolve
from sensorium.settings import Hub

_INDEX = "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".index.json", ".pt", ".pth", ".gguf", ".onnx", ".msgpack", ".h5")
_ARGUMENTS = ("sft_args.json", "args.json")  # ms-swift's notes, which say what the folder is
Progress = Callable[[str, float], None]


def merge(
    adapter: str,
    base: str | None,
    output: Path,
    on_progress: Progress = lambda phase, fraction: None,
    *,
    revision: str | None = None,
    hub: Hub = "huggingface",
) -> Path:
    """Write the merged checkpoint to `output`, which is complete when it appears.

    Every weight is W + (B @ A) * scale, computed in float32 and rounded as PEFT's `merge_and_unload` does. Tensors of
    modules_to_save take the place of the base's.

    Args:
        base: a folder or a hub id; None: what the adapter's files name.
        revision, hub: of a base that is a hub id.

    Raises:
        ConfigurationError: tensors do not fit the base, there is no space, or `output` is there already.
    """
    if output.exists():
        raise ConfigurationError(f"{output} is there already; remove it, or name another --output.")
    files = read_adapter(Path(adapter).expanduser())
    source = resolve(base or base_of(adapter), revision, on_progress, hub)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    _check_tied(files, config)
    family = families.find(config) if families.serves(config) else None
    rename = family.rename if family else lambda name: ("model", name)
    tower = family.tower(config).folder(source) if family and family.tower else None
    shards = weight_files(source)
    _check_space(shards, output)
    merging = _Merging(files, rename)
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(shards, partial, merging, on_progress)
        _copy_rest(source, files.path, partial)
        if tower is not None:
            inside = tower.is_relative_to(source)
            shutil.copytree(tower, partial / (tower.relative_to(source) if inside else tower.name))
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output


class _Merging:
    """Applies an adapter to the base's tensors, whatever prefixes the two were written with."""

    def __init__(self, files: AdapterFiles, rename: Callable[[str], tuple[str, str] | None]) -> None:
        self._rename, self._config = rename, files.config
        self._factors = {rename(f"{module}.weight"): (module, *pair) for module, pair in files.factors.items()}
        self._whole = {rename(name): (name, tensor) for name, tensor in files.whole.items()}
        self._left = {*files.factors, *files.whole}

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        target = self._rename(name)
        if target is None:
            return tensor
        if target in self._whole:
            theirs, whole = self._whole[target]
            self._fits(whole.shape == tensor.shape, theirs, whole.shape, name, tensor)
            tensor = whole.to(tensor.dtype)
        if target not in self._factors:
            return tensor
        module, down, up = self._factors[target]
        rank = self._config.rank(module)
        fits = down.ndim == up.ndim == tensor.ndim == 2 and down.shape[0] == up.shape[1] == rank
        self._fits(fits and (len(up), down.shape[1]) == tensor.shape, module, (*up.shape, *down.shape), name, tensor)
        delta = (up.float() @ down.float()) * self._config.scale(module)
        return (tensor.float() + delta).to(tensor.dtype)

    def check_empty(self) -> None:
        """Complain about what fitted nowhere."""
        if self._left:
            raise ConfigurationError(
                f"The base has no tensors for {len(self._left)} layers of the adapter: {listed(sorted(self._left))}. "
                f"It was made for {self._config.base or 'another model'!r}."
            )

    def _fits(self, fits: bool, theirs: str, shape: tuple[int, ...], name: str, tensor: torch.Tensor) -> None:
        self._left.discard(theirs)
        if not fits:
            raise ConfigurationError(
                f"The adapter's {theirs} {tuple(shape)} does not fit the base's {name} {tuple(tensor.shape)}."
            )


def _check_tied(files: AdapterFiles, config: Mapping[str, Any]) -> None:
    tied = families.serves(config) and families.find(config).decoder(config).tie_word_embeddings
    heads = [name for name in (*files.factors, *files.whole) if "lm_head" in name]
    if tied and heads:
        raise ConfigurationError(
            f"The adapter changes {listed(heads)}, which this base has in common with its embeddings "
            "(tie_word_embeddings), so that they cannot be merged. Serve it unmerged."
        )


def _write(shards: list[Path], output: Path, merging: _Merging, on_progress: Progress) -> None:
    total, done = sum(shard.stat().st_size for shard in shards) or 1, 0
    weight_map: dict[str, str] = {}
    num_bytes = 0
    for number, shard in enumerate(shards, start=1):
        tensors = {name: merging(name, tensor).contiguous().clone() for name, tensor in read_tensors(shard)}
        whole = len(shards) == 1
        file = "model.safetensors" if whole else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, output / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
        num_bytes += sum(tensor.nbytes for tensor in tensors.values())
        done += shard.stat().st_size
        on_progress("merging", done / total)
    merging.check_empty()
    if len(shards) > 1:
        _write_json(output / _INDEX, {"metadata": {"total_size": num_bytes}, "weight_map": weight_map})


def _copy_rest(source: Path, adapter: Path, output: Path) -> None:
    """Everything of the base but its weights; ms-swift's notes from the adapter, as those of a whole model."""
    for entry in sorted(source.iterdir()):
        if entry.is_file() and not entry.name.endswith(_WEIGHTS) and not entry.name.startswith("."):
            shutil.copyfile(entry, output / entry.name)
    for name in _ARGUMENTS:
        if (adapter / name).is_file():
            notes: Mapping[str, Any] = json.loads((adapter / name).read_text(encoding="utf-8"))
            kind = {"sft_type": "full"} if name == "sft_args.json" else {"train_type": "full", "adapters": []}
            _write_json(output / name, {**notes, **kind})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_space(shards: list[Path], output: Path) -> None:
    needed = sum(shard.stat().st_size for shard in shards)
    there = next(parent for parent in output.parents if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed * 1.01:
        raise ConfigurationError(
            f"The merged model takes {needed / (1 << 30):.1f} GiB; {there} has {free / (1 << 30):.1f} GiB free."
        )
