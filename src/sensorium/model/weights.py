"""Read a checkpoint's tensors: safetensors, sharded or not, else official .bin files without unpickling objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sensorium.errors import ConfigurationError

Rename = Callable[[str], "tuple[str, str] | None"]
_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "half": torch.float16,
    "float32": torch.float32,
    "float": torch.float32,
}


def pick_dtype(wanted: str, config: dict[str, Any], device: torch.device) -> torch.dtype:
    """Resolve `--dtype`. auto: the checkpoint's, with float16 taken as bfloat16 (its activations overflow half).

    Raises:
        ConfigurationError: an unknown name.
    """
    if wanted != "auto":
        if wanted not in _DTYPES:
            raise ConfigurationError(f"dtype {wanted!r} is not known; choose from auto, {', '.join(_DTYPES)}.")
        return _DTYPES[wanted]
    text = config.get("text_config") or {}
    named = str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype"))
    found = _DTYPES.get(named.removeprefix("torch."), torch.bfloat16)
    if found == torch.float16:
        found = torch.bfloat16
    if found == torch.bfloat16 and device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.float32  # bf16 without hardware for it is emulated, slower than fp32
    return found


def load_weights(
    path: Path, rename: Rename, dtype: torch.dtype, device: torch.device, on_progress: Callable[[str, float], None]
) -> dict[str, dict[str, torch.Tensor]]:
    """Return {"decoder": {name: tensor}, ...}, the parts `rename` names, in `dtype` on `device`.

    On a CPU with the file's own dtype the tensors are views of the mapped file: nothing is copied here.

    Raises:
        ConfigurationError: no weights, a missing shard, or a file that is cut short or damaged.
    """
    files = weight_files(path)
    parts: dict[str, dict[str, torch.Tensor]] = {"decoder": {}}
    total, done = sum(file.stat().st_size for file in files) or 1, 0
    for file in files:
        for name, tensor in read_tensors(file):
            target = rename(name)
            if target is not None:
                part, ours = target
                parts.setdefault(part, {})[ours] = tensor.to(device=device, dtype=dtype)
            done += tensor.nbytes
            on_progress("loading weights", min(1.0, done / total))
    return parts


def weight_files(path: Path) -> list[Path]:
    """The checkpoint's weight files in order, complete.

    Raises:
        ConfigurationError: none are there, or the index names files that are not.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = path / f"{stem}.{suffix}.index.json"
        if index.exists():
            return _indexed(index)
        if (path / f"{stem}.{suffix}").exists():
            return [path / f"{stem}.{suffix}"]
    raise ConfigurationError(f"{path} holds no model.safetensors, no index of shards, and no pytorch_model.bin.")


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError):
        raise ConfigurationError(f"{index} is not a readable index of weight shards.") from None
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or not names:
        raise ConfigurationError(f"{index} names {len(names)} shards; missing here: {', '.join(missing) or 'all'}.")
    return [index.parent / name for name in names]


def read_tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of one file with their names, as they are.

    Raises:
        ConfigurationError: the file is cut short or damaged, or holds other things than tensors.
    """
    if file.suffix == ".bin":
        yield from _read_bin(file).items()
        return
    try:
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, shard.get_tensor(name)
    except SafetensorError:
        raise ConfigurationError(f"{file} is damaged or cut short; download it again.") from None


def _read_bin(file: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
    except Exception:  # of a zip file, of its index, of what may not be unpickled: there are many kinds
        content = None
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise ConfigurationError(
            f"{file} is damaged, or holds other things than tensors; nothing else is read from it."
        )
    return content
