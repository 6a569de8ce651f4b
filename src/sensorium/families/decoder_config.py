"""config.json -> DecoderConfig, through all the forms in which publishers and transformers wrote it.

Text keys lie at the top (Qwen2-VL on the hub) or in `text_config`; rotary settings are `rope_theta` and
`rope_scaling` (transformers 4) or one `rope_parameters` (5).
"""

from __future__ import annotations

from typing import Any

from sensorium.errors import ConfigurationError
from sensorium.families.context import context_length, original_length, rope_kind, rope_settings
from sensorium.families.family import Config
from sensorium.families.reading import number
from sensorium.model.config import DecoderConfig

_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_ROPE_IS_PLAIN = ("default", "mrope")
_ROPE_FROM = ("llama3", "longrope", "yarn")  # kinds that stretch from an original length, by default the longest


def text_part(config: Config) -> Config:
    """Return the part of config.json that describes the decoder."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def vision_part(config: Config) -> Config:
    """Return the part of config.json that describes the vision tower.

    Raises:
        ConfigurationError: there is none.
    """
    nested = config.get("vision_config")
    if not isinstance(nested, dict):
        raise ConfigurationError("config.json has no 'vision_config'; a vision model needs one.")
    return nested


def read_decoder(
    config: Config,
    *,
    attention_bias: bool,
    qk_norm: bool = False,
    rope_theta: float = 10000.0,
    mrope_section: tuple[int, ...] = (),
    mrope_interleaved: bool = False,
    num_deepstack_layers: int = 0,
) -> DecoderConfig:
    """Read the decoder's shape; the keyword arguments are what a family knows and the file may not say.

    Without `mrope_section` positions have one axis, whatever the file says.

    Raises:
        ConfigurationError: a key is missing, or the file asks for something the decoder does not do.
    """
    text = text_part(config)
    missing = [key for key in _REQUIRED if not isinstance(text.get(key), int) or text[key] < 1]
    if missing:
        raise ConfigurationError(f"config.json lacks {', '.join(missing)} for the decoder, each a number above 0.")
    _refuse(config, text)
    rope, max_positions = rope_settings(text), context_length(text)
    kind = rope_kind(rope)
    if kind in _ROPE_FROM:
        original = original_length(text)
        rope |= {"original_max_position_embeddings": original}
        if kind == "longrope":
            rope = {"factor": int(text.get("max_position_embeddings") or original) / original} | rope
    heads = text["num_attention_heads"]
    head_dim = text.get("head_dim") or text["hidden_size"] // heads
    section = tuple(rope.get("mrope_section") or mrope_section) if mrope_section else ()
    if section and (len(section) != 3 or sum(section) != head_dim // 2):
        raise ConfigurationError(
            f"mrope_section is {list(section)} in config.json; it must be three sizes that sum to head_dim / 2, "
            f"{head_dim // 2}."
        )
    return DecoderConfig(
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        num_hidden_layers=text["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=text.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        rms_norm_eps=number(text, "rms_norm_eps", 1e-6),
        rope_theta=number(rope, "rope_theta", number(text, "rope_theta", rope_theta)),
        max_position_embeddings=max_positions,
        rope_scaling={} if kind in _ROPE_IS_PLAIN else rope | {"rope_type": kind},
        mrope_section=section,
        mrope_interleaved=mrope_interleaved,
        attention_bias=attention_bias,
        qk_norm=qk_norm,
        tie_word_embeddings=_tied(config, text),
        num_deepstack_layers=num_deepstack_layers,
    )


def _tied(config: Config, text: Config) -> bool:
    """The top key counts where there is one, as in transformers 5; some families may have it in text_config only."""
    kind = str(config.get("model_type", ""))
    unsaid = kind == "internvl"  # the one config class here whose default is true
    outer = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", unsaid)))
    either = kind.startswith(("qwen2", "llava"))
    return outer or (either and bool(text.get("tie_word_embeddings", False)))


def _refuse(config: Config, text: Config) -> None:
    """Name what would be computed wrongly."""
    rotated = {**text, **rope_settings(text)}.get("partial_rotary_factor", 1.0)
    wrong: dict[str, Any] = {
        "quantization_config": config.get("quantization_config") or text.get("quantization_config"),
        "hidden_act": None if text.get("hidden_act", "silu") == "silu" else text["hidden_act"],
        "mlp_bias": text.get("mlp_bias") or None,
        "partial_rotary_factor": None if rotated == 1.0 else "other than 1",
    }
    for key, value in wrong.items():
        if value:
            shown = value.get("quant_method", "given") if isinstance(value, dict) else value
            raise ConfigurationError(
                f"config.json has {key} {shown!r}, which the native engine does not support; "
                "use an unquantised checkpoint of a supported family."
            )
