"""adapter_config.json: what of an adapter is read from it, and what is refused because it would be computed wrongly."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium.errors import ConfigurationError

FILE = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MAX_BYTES = 8 << 20

# Keys that change what is computed -> the values with which they do not.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "bias": ("none",),
    "lora_bias": (False,),
    "fan_in_fan_out": (False,),
    "use_qalora": (False,),
    "use_bdlora": (False,),
    "layer_replication": (),
    "trainable_token_indices": (),
    "target_parameters": (),
    "alora_invocation_tokens": (),
    "arrow_config": (),
    "kasa_config": (),
    "monteclora_config": (),
    "velora_config": (),
}
# Initialisations that change the base's weights before training; the file alone cannot say how.
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


@dataclass(frozen=True)
class LoraConfig:
    """The settings of an adapter. Names are PEFT's.

    `target_modules` is not among them: which layers an adapter changes is said by its tensors, whether they were
    chosen by a list, a regular expression or "all-linear".
    """

    r: int
    lora_alpha: float
    use_rslora: bool = False
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    modules_to_save: tuple[str, ...] = ()
    base: str = ""  # base_model_name_or_path

    def rank(self, module: str) -> int:
        """Return the rank of the layer `module`, a name in the base model."""
        return int(_find(self.rank_pattern, module, self.r))

    def scale(self, module: str) -> float:
        """Return what the product of the layer's factors is multiplied with."""
        rank = self.rank(module)
        alpha = _find(self.alpha_pattern, module, self.lora_alpha)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def read_config(folder: Path) -> LoraConfig:
    """Read an adapter's settings.

    Raises:
        ConfigurationError: no such file, not LoRA, or a kind of LoRA that is not supported; the key is named.
    """
    data = read_object(folder / FILE)
    kind = str(data.get("peft_type", "LORA"))
    if kind != "LORA":
        raise ConfigurationError(f"{folder / FILE} has peft_type {kind!r}; supported: 'LORA'.")
    for key, neutral in _NEUTRAL.items():
        value = data.get(key)
        if value is not None and value not in neutral and value not in ([], {}):
            name = "DoRA (use_dora)" if key == "use_dora" else f"{key} {value!r}"
            raise ConfigurationError(
                f"{folder / FILE} asks for {name}, which is not supported. Merge the adapter with PEFT "
                "(merge_and_unload, save_pretrained) and serve the merged model."
            )
    start = data.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ConfigurationError(
            f"{folder / FILE} has init_lora_weights {start!r}, which changes the base's own weights. Convert the "
            "adapter with PEFT (path_initial_model_for_weight_conversion of save_pretrained)."
        )
    try:
        config = LoraConfig(
            r=int(data["r"]),
            lora_alpha=float(data.get("lora_alpha", 8)),
            use_rslora=bool(data.get("use_rslora")),
            rank_pattern=tuple((str(key), int(rank)) for key, rank in (data.get("rank_pattern") or {}).items()),
            alpha_pattern=tuple((str(key), float(alpha)) for key, alpha in (data.get("alpha_pattern") or {}).items()),
            modules_to_save=tuple(map(str, data.get("modules_to_save") or ())),
            base=str(data.get("base_model_name_or_path") or ""),
        )
        for pattern, _ in (*config.rank_pattern, *config.alpha_pattern):
            re.compile(pattern)
        if not all(map(math.isfinite, (config.lora_alpha, *(alpha for _, alpha in config.alpha_pattern)))):
            raise ValueError  # Python's JSON reader takes NaN and Infinity
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, re.error):
        raise ConfigurationError(f"{folder / FILE} lacks r, or one of its numbers or patterns is none.") from None
    if min(config.r, *(rank for _, rank in config.rank_pattern), config.r) < 1:
        raise ConfigurationError(f"{folder / FILE} has a rank below 1.")
    return config


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a small file.

    Raises:
        ConfigurationError: no such file, too large, or no JSON object in it.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError:
        raise ConfigurationError(f"{path} cannot be read; an adapter's folder holds {FILE} and {WEIGHTS[0]}.") from None
    try:
        data = json.loads(raw) if len(raw) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} is not a JSON object of at most {_MAX_BYTES >> 20} MiB.")
    return data


def _find(patterns: tuple[tuple[str, float], ...], module: str, default: float) -> float:
    """The value of the first pattern that matches the end of the name, as in PEFT's `get_pattern_key`."""
    for pattern, value in patterns:
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
