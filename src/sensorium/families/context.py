"""How long a context a checkpoint was made for, by what its config.json says of positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.errors import ConfigurationError
from sensorium.families.reading import number

_DEFAULT = 2048
_WHERE = "rope_scaling in config.json"


def rope_settings(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings of either form; settings of no value are as if they were not there.

    Raises:
        ConfigurationError: they are no object.
    """
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ConfigurationError(f"config.json has rope_scaling or rope_parameters {rope!r}; it must be an object.")
    return {key: value for key, value in rope.items() if value is not None}


def rope_kind(rope: Mapping[str, Any]) -> str:
    """Return the name that transformers 4 and 5 write under different keys."""
    return str(rope.get("rope_type") or rope.get("type") or "default")


def original_length(text: Mapping[str, Any]) -> int:
    """Return the context the model had before its positions were scaled."""
    return int(number(rope_settings(text), "original_max_position_embeddings", _written(text), _WHERE))


def context_length(text: Mapping[str, Any]) -> int:
    """Return the longest prompt and answer together; `text` is the decoder's part of config.json.

    As vLLM has it (`_get_and_verify_max_len`), but for YaRN: Qwen's model cards have it added to config.json without
    another word about the length.

    Raises:
        ConfigurationError: the rotary settings are no settings.
    """
    rope, length = rope_settings(text), _written(text)
    kind = rope_kind(rope)
    if kind == "linear":
        return int(length * number(rope, "factor", 1.0, _WHERE))
    if kind == "yarn":
        return max(length, int(original_length(text) * number(rope, "factor", 1.0, _WHERE)))
    if kind == "longrope":  # beyond the original length other factors count, which a paged cache cannot change midway
        return min(length, original_length(text))
    return length


def _written(text: Mapping[str, Any]) -> int:
    """A sliding window changes nothing in contexts no longer than itself, so it becomes the longest context."""
    limit = int(text.get("max_position_embeddings") or _DEFAULT)
    window = text.get("sliding_window")
    return min(limit, window) if isinstance(window, int) and _slides(text) else limit


def _slides(text: Mapping[str, Any]) -> bool:
    """Qwen's classes have windows only where the file asks for them and in some layers, Mistral's wherever one is."""
    if not str(text.get("model_type", "")).startswith("qwen"):
        return bool(text.get("use_sliding_window", True))
    if not text.get("use_sliding_window"):
        return False
    kinds = text.get("layer_types")
    if isinstance(kinds, list):
        return "sliding_attention" in kinds
    first = text.get("max_window_layers")
    return not isinstance(first, int) or first < int(text.get("num_hidden_layers") or 0)
