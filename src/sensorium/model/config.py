"""What the one decoder needs to know about a checkpoint. Filled by a family from `config.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from sensorium.errors import ConfigurationError


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

    def __post_init__(self) -> None:
        check_numbers(self, "config.json")
        if self.head_dim % 2 or self.num_attention_heads % self.num_key_value_heads:
            raise ConfigurationError(
                f"config.json has {self.num_attention_heads} heads of {self.head_dim} and num_key_value_heads "
                f"{self.num_key_value_heads}; a head's size must be even, and the first number a multiple of the last."
            )


def check_numbers(shape: Any, where: str) -> None:
    """Check that the sizes in a dataclass are sizes: whole numbers, at least 1, or 0 where that is the default.

    Raises:
        ConfigurationError: one is not; the message names it, by its field, and the file.
    """
    for each in dataclasses.fields(shape):
        if each.type != "int":
            continue
        value, least = getattr(shape, each.name), int(each.default != 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(f"{where} has {each.name} {value!r}; it must be a whole number, at least {least}.")
