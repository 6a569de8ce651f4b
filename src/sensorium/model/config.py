"""What the one decoder needs to know about a checkpoint. Filled by a family from `config.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DecoderConfig:
    """A pre-norm RMSNorm + GQA + SwiGLU + RoPE decoder. Field names are Hugging Face's."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    rope_scaling: dict[str, Any] = field(default_factory=dict)  # {"rope_type": "llama3" | "linear" | ..., ...}
    mrope_section: tuple[int, ...] = ()  # three sizes that sum to head_dim / 2; empty: 1-d positions
    mrope_interleaved: bool = False  # Qwen3-VL: sections alternate t,h,w instead of lying in blocks
    attention_bias: bool = False  # on q, k and v (Qwen2)
    qk_norm: bool = False  # RMSNorm per head on q and k (Qwen3)
    tie_word_embeddings: bool = False
    ntk_length: int = 0  # prompts longer than this have rotary frequencies of their own; 0: all have the same (Qwen 1)
    logn_length: int = 0  # queries beyond this place are sharpened by its logarithm; 0: none are (Qwen 1)
    num_deepstack_layers: int = 0  # encoder features added to the output of the first layers (Qwen3-VL)
