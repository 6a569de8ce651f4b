"""The first Qwen, text only: one tensor for q, k and v, an MLP written the other way round, its own way to long texts.

Source: `modeling_qwen.py`, published with the checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.decoder_config import read_decoder
from sensorium.families.family import Config, Family
from sensorium.families.names import replaced
from sensorium.model.config import DecoderConfig

_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "kv_channels": "head_dim",
    "layer_norm_epsilon": "rms_norm_eps",
    "rotary_emb_base": "rope_theta",
    "rotary_pct": "partial_rotary_factor",
    "max_position_embeddings": "max_position_embeddings",
    "tie_word_embeddings": "tie_word_embeddings",
    "quantization_config": "quantization_config",
}
_TENSORS = (
    ("transformer.wte.", "embed_tokens."),
    ("transformer.ln_f.", "norm."),
    ("transformer.h.", "layers."),
    (".ln_1.", ".input_layernorm."),
    (".ln_2.", ".post_attention_layernorm."),
    (".attn.c_attn.", ".self_attn.qkv_proj."),
    (".attn.c_proj.", ".self_attn.o_proj."),
    (".mlp.w1.", ".mlp.up_proj."),
    (".mlp.w2.", ".mlp.gate_proj."),
    (".mlp.c_proj.", ".mlp.down_proj."),
)
# The authors' `make_context` and `from_list_format` as a template. Of other formats ("raw") there are no chats.
CHAT_FORMATS = {
    "chatml": (
        "{% set pictures = namespace(number=0) %}"
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        "{% set pictures.number = pictures.number + 1 %}"
        "{{ 'Picture ' ~ pictures.number ~ ': <img></img>\n' }}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
}
END_TOKENS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")


def read_qwen(config: Config) -> DecoderConfig:
    """Read the decoder's shape.

    Raises:
        ConfigurationError: a key is missing, or the file asks for something the decoder does not do.
    """
    if not config.get("no_bias", True):
        raise ConfigurationError("config.json has no_bias false, which the native engine does not support.")
    text = {ours: config[theirs] for theirs, ours in _NAMES.items() if theirs in config}
    both = config.get("intermediate_size")  # of gate and up together
    text["intermediate_size"] = both // 2 if isinstance(both, int) else None
    trained = int(config.get("seq_length") or text.get("max_position_embeddings") or 2048)
    return replace(
        read_decoder(text, attention_bias=True),
        ntk_length=trained if config.get("use_dynamic_ntk", True) else 0,
        logn_length=trained if config.get("use_logn_attn", True) else 0,
    )


def rename(name: str) -> tuple[str, str] | None:
    """Name of a decoder tensor; q, k and v are still one."""
    if name.endswith(("rotary_emb.inv_freq", ".masked_bias")):
        return None  # computed, not learned
    return "decoder", replaced(name, _TENSORS)


def split_qkv(config: Config, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cut each fused tensor, (3 * hidden_size, ...), into q, k and v; see `Family.convert`."""
    result: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if ".qkv_proj." in name:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            result |= {name.replace("qkv_proj", f"{part}_proj"): rows for part, rows in parts}
        else:
            result[name] = tensor
    return result


FAMILY = Family(
    name="qwen",
    architectures=("QWenLMHeadModel",),
    decoder=read_qwen,
    rename=rename,
    convert=split_qkv,
    end_tokens=END_TOKENS,
    chat_formats=CHAT_FORMATS,
)
