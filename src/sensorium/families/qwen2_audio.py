"""Qwen2-Audio: Whisper's encoder, its rows averaged in pairs, one linear layer, Qwen2."""

from __future__ import annotations

from typing import Any

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import Config, Encoder, Family, Media
from sensorium.families.inner_text import read_inner_text
from sensorium.families.names import rename_text_part, replaced
from sensorium.families.whisper_audio import WhisperAudioProcessor
from sensorium.model.encoders.audio_tower import AudioTower, AudioTowerConfig

# Whisper large-v3's encoder, what transformers' config class takes where the file is silent.
_WHISPER: dict[str, Any] = {
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "num_mel_bins": 128,
    "max_source_positions": 1500,
    "activation_function": "gelu",
}
_NAMES = (
    ("embed_positions.weight", "positions"),
    ("self_attn_layer_norm.", "norm1."),
    ("final_layer_norm.", "norm2."),
    ("layer_norm.", "norm."),
    ("self_attn.out_proj.", "attn.proj."),
    ("self_attn.q_proj.", "attn.q."),
    ("self_attn.k_proj.", "attn.k."),
    ("self_attn.v_proj.", "attn.v."),
)


def tower(config: Config) -> AudioTowerConfig:
    """The tower's shape.

    Raises:
        ConfigurationError: config.json describes none, or one with another activation than Whisper's.
    """
    nested = config.get("audio_config")
    if not isinstance(nested, dict):
        raise ConfigurationError("config.json has no 'audio_config'; a model that hears needs one.")
    part = _WHISPER | nested
    if part["activation_function"] != "gelu":
        raise ConfigurationError(
            f"audio_config in config.json has activation_function {part['activation_function']!r}; supported: 'gelu'."
        )
    return AudioTowerConfig(
        num_layers=part["encoder_layers"],
        hidden_size=part["d_model"],
        num_heads=part["encoder_attention_heads"],
        intermediate_size=part["encoder_ffn_dim"],
        num_mels=part["num_mel_bins"],
        max_rows=part["max_source_positions"],
        out_hidden_size=read_inner_text(config).hidden_size,
    )


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return AudioTower(tower(config), dtype, device)


def _processor(checkpoint: Checkpoint) -> WhisperAudioProcessor:
    shape = tower(checkpoint.config)
    settings = checkpoint.settings("feature_extractor", "preprocessor_config.json")
    return WhisperAudioProcessor.read(settings, num_mels=shape.num_mels, max_rows=shape.max_rows)


def _rename(name: str) -> tuple[str, str] | None:
    bare = name.removeprefix("model.")
    if bare.startswith("multi_modal_projector."):
        return "audio", bare.replace("multi_modal_projector.linear.", "projector.")
    if bare.startswith("audio_tower."):
        return "audio", replaced(bare.removeprefix("audio_tower."), _NAMES)
    return rename_text_part(name)


FAMILY = Family(
    name="qwen2_audio",
    architectures=("Qwen2AudioForConditionalGeneration",),
    decoder=read_inner_text,
    rename=_rename,
    media={
        "audio": Media(
            processor=_processor,
            placeholder=lambda checkpoint: checkpoint.config_id("audio_token_index", "audio_token_id"),
            marker="<|audio_bos|><|AUDIO|><|audio_eos|>",
        )
    },
    encoders={"audio": _encoder},
)
