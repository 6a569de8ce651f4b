"""Qwen2 and Qwen2.5, text only."""

from __future__ import annotations

from functools import partial

from sensorium.families.decoder_config import read_decoder
from sensorium.families.family import Family
from sensorium.families.names import rename_text

FAMILY = Family(
    name="qwen2",
    architectures=("Qwen2ForCausalLM",),
    decoder=partial(read_decoder, attention_bias=True, rope_theta=10000.0),
    rename=rename_text,
)
