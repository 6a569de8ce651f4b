"""Llama 2 and 3, and Mistral, which is the same but for a sliding window."""

from __future__ import annotations

from sensorium.families.decoder_config import read_decoder
from sensorium.families.family import Config, Family
from sensorium.families.names import rename_text
from sensorium.model.config import DecoderConfig


def _decoder(config: Config) -> DecoderConfig:
    return read_decoder(config, attention_bias=bool(config.get("attention_bias", False)))


FAMILY = Family(
    name="llama",
    architectures=("LlamaForCausalLM", "MistralForCausalLM"),
    decoder=_decoder,
    rename=rename_text,
)
