"""What ms-swift's fine-tuning leaves: a folder with full weights, or with an adapter, and the options of its training.

From ms-swift 2.6.1, llm/utils/argument.py (`load_from_ckpt_dir`): sft_args.json, or export_args.json after merging.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from sensorium.errors import ConfigurationError
from sensorium.lora.config import FILE
from sensorium.lora.folder import merged_path
from sensorium.registry.model_types import MODEL_TYPES

_ARGUMENTS = ("sft_args.json", "export_args.json")


class Finetuned(msgspec.Struct, frozen=True):
    """A fine-tuned checkpoint folder.

    Attributes:
        folder: where it is.
        adapter: it holds an adapter, which needs the weights of `base`; otherwise it holds full weights.
        base: folder or hub id of what was fine-tuned; None where the folder does not say.
        model_type, revision, dtype, system: of the training; None where the folder does not say.
        told: a file of options was there.
    """

    folder: Path
    adapter: bool
    base: str | None = None
    model_type: str | None = None
    revision: str | None = None
    dtype: str | None = None
    system: str | None = None
    told: bool = False


def read_finetuned(folder: str | Path, *, use_arguments: bool = True) -> Finetuned:
    """Read a `--ckpt_dir`.

    Args:
        use_arguments: read the options of the training, if they are there.

    Raises:
        ConfigurationError: no such folder, neither weights nor an adapter in it, or the training had an option whose
            effect on answers cannot be reproduced here.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        near = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir()) if path.parent.is_dir() else []
        hint = f" {path.parent} holds: {', '.join(near[:8]) or 'no folders'}." if path.parent.is_dir() else ""
        raise ConfigurationError(f"There is no checkpoint folder {str(path)!r}.{hint}")
    adapter = is_adapter(path)
    if not adapter and not (path / "config.json").is_file():
        raise ConfigurationError(
            f"{path} has neither config.json (full weights) nor adapter_config.json (an adapter); is it the folder of "
            "one checkpoint, such as output/.../checkpoint-100?"
        )
    arguments = _arguments(path) if use_arguments else None
    told = arguments or {}
    _check(path, told)
    base = told.get("model_id_or_path")
    if adapter and (base is None or not Path(base).expanduser().is_dir()):
        trained_on = _read(path / FILE).get("base_model_name_or_path")
        if base is None or (isinstance(trained_on, str) and Path(trained_on).expanduser().is_dir()):
            base = trained_on  # swift notes the hub's id, peft the folder it was downloaded to
    dtype = told.get("dtype")
    return Finetuned(
        folder=path,
        adapter=adapter,
        base=base,
        model_type=told.get("model_type"),
        revision=told.get("model_revision"),
        dtype=None if dtype in (None, "AUTO") else str(dtype),
        system=told.get("system"),
        told=arguments is not None,
    )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, in peft's layout."""
    return (folder / FILE).is_file()


def merged_folder(finetuned: Finetuned) -> Path | None:
    """Return the folder in which swift leaves the merged weights of this adapter, if it is there: `<folder>-merged`."""
    beside = merged_path(str(finetuned.folder))
    return beside if (beside / "config.json").is_file() else None


def _arguments(path: Path) -> dict[str, Any] | None:
    for name in _ARGUMENTS:
        if (path / name).is_file():
            return _read(path / name)
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigurationError(f"{file} is not readable JSON.") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{file} holds no JSON object.")
    return value


def _check(path: Path, told: dict[str, Any]) -> None:
    """Refuse trainings that would be answered differently here than they were trained."""
    for name in ("model_type", "model_id_or_path", "model_revision", "dtype", "system"):
        if not isinstance(told.get(name), str | None):
            raise ConfigurationError(f"{path}: its training options have {name} = {told[name]!r}; text is expected.")
    if told.get("quant_method") or told.get("quantization_bit"):
        how = told.get("quant_method") or f"{told['quantization_bit']} bits"
        raise ConfigurationError(f"{path} was trained on quantized weights ({how}), which are not served yet.")
    if told.get("rope_scaling"):
        raise ConfigurationError(
            f"{path} was trained with rope_scaling {told['rope_scaling']!r}, which is not served here; put it "
            "into config.json and give --load_args_from_ckpt_dir false."
        )
    row = MODEL_TYPES.get(told.get("model_type") or "")
    template = told.get("template_type")
    if row is not None and template not in (None, "AUTO", row.template):
        raise ConfigurationError(
            f"{path} was trained with template_type {template!r}; {told['model_type']} is served with its own, "
            f"{row.template!r}. Give the other one as --chat-template FILE and --load_args_from_ckpt_dir false."
        )
