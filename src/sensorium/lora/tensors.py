"""The tensors of an adapter's folder, by the layers of the base model they belong to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch

from sensorium.errors import ConfigurationError
from sensorium.lora.config import FILE, WEIGHTS, LoraConfig, read_config
from sensorium.model.weights import read_tensors

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.[^.]+)?\.weight")
_WHOLE = re.compile(r"\.modules_to_save(\.[^.]+)?\.")
_OTHER_KINDS = {  # what a tensor's name holds -> what that means
    "lora_magnitude_vector": "DoRA",
    "lora_embedding_": "LoRA on embeddings",
    "lora_B.bias": "lora_bias",
}


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter as it lies on the disk.

    Attributes:
        factors: the layer's name in the base model -> lora_A, (rank, in_features), and lora_B, (out_features, rank).
        whole: tensors that replace the base's own (modules_to_save), by their names there.
        key: a hash of both files.
    """

    path: Path
    config: LoraConfig
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    whole: dict[str, torch.Tensor]
    key: str


def read_adapter(path: Path) -> AdapterFiles:
    """Read a folder that PEFT's `save_pretrained` wrote.

    Raises:
        ConfigurationError: a file is missing, damaged, or of a kind that is not supported; tensors are named.
    """
    config = read_config(path)
    file = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if file is None:
        raise ConfigurationError(f"{path} holds neither {' nor '.join(WEIGHTS)}.")
    sides: dict[str, dict[str, torch.Tensor]] = {}
    whole: dict[str, torch.Tensor] = {}
    for name, tensor in read_tensors(file):
        kind = next((kind for mark, kind in _OTHER_KINDS.items() if mark in name), None)
        if kind is not None:
            raise ConfigurationError(f"{file} has the tensor {name!r}: {kind} is not supported.")
        if not tensor.isfinite().all():  # a NaN would spread to the other rows of a batch
            raise ConfigurationError(f"{file} is broken: {name!r} holds values that are not finite.")
        if ".base_layer." in name:
            continue  # PEFT repeats the base's own weights of embeddings and heads that an adapter changes
        bare = name.removeprefix(_PREFIX)
        if found := _FACTOR.fullmatch(bare):
            sides.setdefault(found["module"], {})[found["side"]] = tensor
        else:
            whole[_WHOLE.sub(".", bare)] = tensor
    halves = sorted(f"{module}.lora_{'B' if 'A' in pair else 'A'}" for module, pair in sides.items() if len(pair) < 2)
    if halves or not (sides or whole):
        raise ConfigurationError(f"{file} lacks {listed(halves)}." if halves else f"{file} holds no tensors of LoRA.")
    digest = blake2b((path / FILE).read_bytes(), digest_size=16)
    with file.open("rb") as raw:
        while piece := raw.read(1 << 20):
            digest.update(piece)
    factors = {module: (pair["A"], pair["B"]) for module, pair in sides.items()}
    return AdapterFiles(path, config, factors, whole, digest.hexdigest())


def listed(things: list[str]) -> str:
    """Name the first five, and say how many more there are."""
    return ", ".join(things[:5]) + (f" and {len(things) - 5} more" if len(things) > 5 else "")
