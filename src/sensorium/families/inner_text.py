"""The decoder inside families that take any of several: text_config says which, and may leave out its defaults."""

from __future__ import annotations

from typing import Any

from sensorium.errors import ConfigurationError
from sensorium.families.decoder_config import read_decoder, text_part
from sensorium.families.family import Config
from sensorium.model.config import DecoderConfig

# What transformers' config classes take where the file is silent, and files written by it are silent about it.
_LLAMA: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
_MISTRAL = _LLAMA | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
_QWEN: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
}
_DEFAULTS = {"llama": _LLAMA, "mistral": _MISTRAL, "qwen2": _QWEN, "qwen3": _QWEN | {"head_dim": 128}}


def read_inner_text(config: Config) -> DecoderConfig:
    """Read the shape of the decoder in `text_config`, whose model_type says which it is.

    Raises:
        ConfigurationError: the model_type is not known, or as for `read_decoder`.
    """
    text = text_part(config)
    kind = str(text.get("model_type", "llama"))
    if kind not in _DEFAULTS:
        raise ConfigurationError(
            f"text_config in config.json has model_type {kind!r}; supported here: {', '.join(_DEFAULTS)}."
        )
    text = _DEFAULTS[kind] | dict(text)
    return read_decoder(
        {**config, "text_config": text},
        attention_bias=kind == "qwen2" or bool(text.get("attention_bias", False)),
        qk_norm=kind == "qwen3",
    )
