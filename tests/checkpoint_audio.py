"""The parts of the tiny checkpoint that hears: Qwen2-Audio with a window of 3 s."""

from __future__ import annotations

from typing import Any

Shapes = dict[str, tuple[int, ...]]

RATE, SECONDS = 16000, 3
_WIDTH, _MIDDLE, _DEPTH, _MELS, _ROWS = 32, 48, 2, 128, 150

PREPROCESSOR: dict[str, Any] = {
    "chunk_length": SECONDS, "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": _MELS,
    "hop_length": 160, "n_fft": 400, "n_samples": SECONDS * RATE, "nb_max_frames": 2 * _ROWS, "padding_side": "right",
    "padding_value": 0.0, "processor_class": "Qwen2AudioProcessor", "return_attention_mask": True,
    "sampling_rate": RATE,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "model_type": "qwen2_audio_encoder", "num_mel_bins": _MELS, "encoder_layers": _DEPTH, "encoder_attention_heads": 2,
    "encoder_ffn_dim": _MIDDLE, "encoder_layerdrop": 0.0, "d_model": _WIDTH, "dropout": 0.0, "attention_dropout": 0.0,
    "activation_function": "gelu", "activation_dropout": 0.0, "scale_embedding": False, "init_std": 0.02,
    "max_source_positions": _ROWS,
}  # fmt: skip


def audio_shapes(out: int) -> Shapes:
    """Return names and shapes of tower and projector; `out` is the decoder's width."""
    tower = "audio_tower."
    shapes: Shapes = {
        **_affine(f"{tower}conv1", _WIDTH, _MELS, 3),
        **_affine(f"{tower}conv2", _WIDTH, _WIDTH, 3),
        f"{tower}embed_positions.weight": (_ROWS, _WIDTH),
    }
    for index in range(_DEPTH):
        layer = f"{tower}layers.{index}."
        for name in ("q_proj", "v_proj", "out_proj"):
            shapes |= _affine(f"{layer}self_attn.{name}", _WIDTH, _WIDTH)
        shapes |= {f"{layer}self_attn.k_proj.weight": (_WIDTH, _WIDTH)}
        shapes |= _affine(f"{layer}self_attn_layer_norm", _WIDTH) | _affine(f"{layer}final_layer_norm", _WIDTH)
        shapes |= _affine(f"{layer}fc1", _MIDDLE, _WIDTH) | _affine(f"{layer}fc2", _WIDTH, _MIDDLE)
    return shapes | _affine(f"{tower}layer_norm", _WIDTH) | _affine("multi_modal_projector.linear", out, _WIDTH)


def _affine(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
