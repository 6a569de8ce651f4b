"""What every engine kind reads from a checkpoint's folder: JSON files, sampling defaults, end tokens."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.errors import ConfigurationError, SensoriumError
from sensorium.settings import EngineSettings
from sensorium.types import SamplingParams

if TYPE_CHECKING:  # engines that are another server read checkpoints too, and need neither
    import torch

    from sensorium.prompt.tokenizer import Tokenizer

log = logging.getLogger(__name__)
_SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON object in a file; `missing` where there is no such file, if that is given.

    Raises:
        ConfigurationError: no such file, or no JSON object in it.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise ConfigurationError(f"{path} is missing; the folder does not hold a complete checkpoint.") from None
    except (ValueError, OSError):
        raise ConfigurationError(f"{path} is not readable JSON.") from None
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} holds no JSON object.")
    return data


def pick_device(wanted: str) -> torch.device:
    """Resolve `--device`; auto: the GPU if torch sees one.

    Raises:
        ConfigurationError: no such device.
    """
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigurationError(f"device {wanted!r} is not known; choose auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device {wanted!r} was asked for, but this torch sees no CUDA device; try cpu.")
    return device


def sampling_defaults(generation: dict[str, Any], settings: EngineSettings) -> dict[str, Any]:
    """Return the model's defaults of SamplingParams: the operator's overrides over those of generation_config.json.

    `generation` is the checkpoint's file; `settings.generation_config` may name a folder with another, or "vllm" for
    none.

    Raises:
        ConfigurationError: the folder has no such file, or an override is out of range.
    """
    if settings.generation_config == "vllm":
        generation = {}
    elif settings.generation_config != "auto":
        generation = read_json(Path(settings.generation_config) / "generation_config.json")
    found = _sampling(generation)
    try:
        SamplingParams(**found)
    except (SensoriumError, TypeError) as error:
        log.warning("generation_config.json is ignored: %s", error)
        found = {}
    overridden = _sampling(settings.override_generation_config)
    try:
        SamplingParams(**overridden)
    except (SensoriumError, TypeError) as error:
        raise ConfigurationError(f"override_generation_config: {error}") from None
    return found | overridden


def _sampling(generation: dict[str, Any]) -> dict[str, Any]:
    """Take what SamplingParams knows from transformers' names; do_sample false means greedy, as there."""
    found = {name: generation[name] for name in _SAMPLING_FIELDS if generation.get(name) is not None}
    if generation.get("do_sample") is False:
        found = {name: value for name, value in found.items() if name == "repetition_penalty"} | {"temperature": 0.0}
    if generation.get("max_new_tokens") is not None:
        found["max_tokens"] = generation["max_new_tokens"]
    return found


def tokenizer_folder(path: Path, settings: EngineSettings) -> Path:
    """Return the folder whose tokenizer is used with the checkpoint at `path`.

    Raises:
        ConfigurationError: `settings.tokenizer` names no folder.
    """
    if settings.tokenizer is None:
        return path
    folder = Path(settings.tokenizer).expanduser()
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {settings.tokenizer!r} to take the tokenizer from.")
    return folder


def template_folder(path: Path, tokenizer: Path) -> Path:
    """Return the folder whose chat template is used: the tokenizer's, where it has one, else the checkpoint's."""
    if (tokenizer / "chat_template.jinja").is_file():
        return tokenizer
    files = ("chat_template.json", "tokenizer_config.json")
    return tokenizer if any("chat_template" in read_json(tokenizer / name, missing={}) for name in files) else path


def eos_token_ids(
    generation: dict[str, Any], config: dict[str, Any], tokenizer: Tokenizer, end_tokens: tuple[str, ...] = ()
) -> frozenset[int]:
    """Return the ids of `end_tokens`, and generation_config.json's, else config.json's, else the tokenizer's."""
    known = {tokenizer.added_tokens[text] for text in end_tokens if text in tokenizer.added_tokens}
    text = config.get("text_config") or {}
    for value in (generation.get("eos_token_id"), config.get("eos_token_id"), text.get("eos_token_id")):
        if value is not None:
            return frozenset(known.union(value if isinstance(value, list) else [value]))
    return frozenset(known if tokenizer.eos_token_id is None else known | {tokenizer.eos_token_id})
