"""How long the context of a model of the transformers library can be on this machine."""

from __future__ import annotations

from typing import Any

import torch

from sensorium.errors import ConfigurationError
from sensorium.settings import GIB, EngineSettings
from sensorium.worker.sizing import kv_budget

_UNKNOWN = 8192  # of models whose config.json names no limit, such as those with a state instead of a cache
_LEAST = 32


def context_length(settings: EngineSettings, config: Any, dtype: torch.dtype, device: torch.device) -> int:
    """Return the tokens of prompt and answer together that fit; `config` is the library's.

    Raises:
        ConfigurationError: the wanted context does not fit, or is longer than the model was made for.
    """
    text = config.get_text_config()
    made_for = getattr(text, "max_position_embeddings", None)
    wanted = settings.max_model_len
    if wanted is not None and made_for is not None and wanted > made_for:
        raise ConfigurationError(
            f"--max-model-len is {wanted}; this model was made for {made_for} tokens (max_position_embeddings in "
            "config.json)."
        )
    longest = int(wanted or made_for or _UNKNOWN)
    budget = settings.kv_cache_bytes or kv_budget(settings, device)
    token_bytes = _token_bytes(text, dtype)
    capacity = budget // token_bytes if token_bytes else longest
    if capacity < min(longest, _LEAST) or (wanted is not None and capacity < wanted):
        raise ConfigurationError(
            f"A context of {longest} tokens takes {longest * token_bytes / GIB:.2f} GiB of KV cache; "
            f"{budget / GIB:.2f} GiB is there for it, enough for {capacity} tokens. Lower --max-model-len"
            f"{' or raise --kv-cache-memory' if settings.kv_cache_bytes else ''}."
        )
    return min(longest, int(capacity))


def _token_bytes(config: Any, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers; 0 where the configuration does not tell."""
    sizes = [getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")]
    layers, heads, hidden = (size if isinstance(size, int) else 0 for size in sizes)
    if not layers * heads * hidden:
        return 0
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    return int(2 * layers * kv_heads * head_dim * dtype.itemsize)
