"""What loading a model will take, from its files and settings alone: weights, KV cache, encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sensorium.registry.outlook import made_for
from sensorium.settings import GIB, MIB, EngineSettings

PROCESS_BYTES = 200 * MIB  # torch and the tokenizer in a forked worker, and its decoding children
CUDA_BYTES = 600 * MIB  # a context and its libraries, on the device
_KV_CAP = 8 * GIB
_DEFAULT_CONTEXT = 4096  # where neither settings nor config.json say
_PICTURE_TOKENS = 1280  # what a CPU takes of a picture at most, unless told otherwise (worker/native.py)
_LIVE = 8  # tensors of a layer's width that are alive at once in an encoder layer, the wide one of the MLP included
_ITEM_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
_MAX_HEADER = 100 * MIB


class Estimate(msgspec.Struct, frozen=True):
    """Bytes that a loaded model takes.

    Attributes:
        weights, encoder, process: of the weights, of an encoder's activations for the largest media, of all else.
        token: of the KV cache for one token.
        context: tokens of a prompt and its answer that there must be room for.
        contexts: how many such sequences there may be at once.
        known: the files are here; else nothing could be said and all is zero.
    """

    weights: int = 0
    encoder: int = 0
    process: int = PROCESS_BYTES
    token: int = 0
    context: int = 0
    contexts: int = 1
    known: bool = False

    @property
    def fixed(self) -> int:
        """All but the KV cache."""
        return self.weights + self.encoder + self.process

    @property
    def least(self) -> int:
        """With a KV cache for one sequence of full length."""
        return self.fixed + self.token * self.context

    @property
    def most(self) -> int:
        """With a KV cache for as many sequences as may run."""
        return self.fixed + max(self.token * self.context, min(self.token * self.context * self.contexts, _KV_CAP))


def estimate(settings: EngineSettings, folder: Path | None) -> Estimate:
    """Return what loading takes; only of the process where `folder` is None. Reads the heads of some files."""
    if settings.engine == "remote":
        return Estimate(process=PROCESS_BYTES, known=True)
    config = _read(folder / "config.json") if folder is not None else None
    if folder is None or config is None:
        return Estimate(context=settings.max_model_len or 0)
    text = next((config[name] for name in ("text_config", "llm_config") if isinstance(config.get(name), dict)), config)
    vision = config.get("vision_config")
    item_bytes = _item_bytes(settings, config, text)
    context = settings.max_model_len or made_for(settings, config) or _DEFAULT_CONTEXT
    return Estimate(
        weights=weights_bytes(folder, item_bytes),
        encoder=_encoder_bytes(vision, item_bytes) if isinstance(vision, dict) else 0,
        token=_token_bytes(text, item_bytes),
        context=context,
        contexts=settings.max_num_seqs,
        known=True,
    )


def weights_bytes(folder: Path, item_bytes: int) -> int:
    """Return the size of a checkpoint's tensors once they have `item_bytes` bytes an element."""
    files = [*folder.glob("*.safetensors"), *folder.glob("vit/*.safetensors")]
    if files:
        return sum(_elements(file) * item_bytes for file in files)
    return sum(_size(file) for file in (*folder.glob("*.bin"), *folder.glob("vit/*.bin")))


def advice(found: Estimate, budget: int) -> str:
    """Say what to lower so that a model fits `budget` bytes; "" if nothing does."""
    left = budget - found.fixed
    if found.token and left >= found.token * 256:
        return f"Lower max_model_len to {left // found.token // 256 * 256}."
    return ""


def _elements(file: Path) -> int:
    """How many elements a safetensors file has; 2 bytes each where its head cannot be read (loading says why)."""
    size = _size(file)
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(size, _MAX_HEADER):
                return size // 2
            head = json.loads(stream.read(length))
        return sum(_product(entry["shape"]) for name, entry in head.items() if name != "__metadata__")
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return size // 2


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # a link to nowhere, or gone since it was listed; loading says so
        return 0


def _product(shape: list[int]) -> int:
    count = 1
    for side in shape:
        count *= int(side)
    return count


def _token_bytes(text: Mapping[str, Any], item_bytes: int) -> int:
    heads = _number(text, "num_attention_heads", "n_head")
    width = _number(text, "head_dim") or (_number(text, "hidden_size", "n_embd") // heads if heads else 0)
    layers = _number(text, "num_hidden_layers", "n_layer")
    return 2 * layers * (_number(text, "num_key_value_heads") or heads) * width * item_bytes


def _encoder_bytes(vision: Mapping[str, Any], item_bytes: int) -> int:
    width = _number(vision, "hidden_size", "embed_dim")
    wide = _number(vision, "intermediate_size") or 4 * width
    patches = _PICTURE_TOKENS * (_number(vision, "spatial_merge_size") or 2) ** 2
    return patches * (_LIVE * width + wide) * item_bytes


def _item_bytes(settings: EngineSettings, config: Mapping[str, Any], text: Mapping[str, Any]) -> int:
    named = (config.get("dtype"), config.get("torch_dtype"), text.get("dtype"), text.get("torch_dtype"))
    stored = next((str(name).removeprefix("torch.") for name in named if name), "bfloat16")
    return _ITEM_BYTES.get(stored if settings.dtype == "auto" else settings.dtype, 2)


def _number(config: Mapping[str, Any], *names: str) -> int:
    return next((config[name] for name in names if isinstance(config.get(name), int)), 0)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
