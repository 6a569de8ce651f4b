"""Qwen3, text only: a norm on every head of q and k, biases only where config.json says so."""

from __future__ import annotations

from sensorium.families.decoder_config import read_decoder
from sensorium.families.family import Config, Family
from sensorium.families.names import rename_text
from sensorium.model.config import DecoderConfig


def _decoder(config: Config) -> DecoderConfig:
    return read_decoder(config, attention_bias=bool(config.get("attention_bias", False)), qk_norm=True)


FAMILY = Family(name="qwen3", architectures=("Qwen3ForCausalLM",), decoder=_decoder, rename=rename_text)
