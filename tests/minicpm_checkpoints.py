"""Tiny random checkpoints of MiniCPM-V in the authors' layout, always the same for the same arguments.

    make_minicpm("2.6", tmp_path)

Names and values are those of the published files, but for the sizes. transformers cannot load them: the other side of
the comparison is `tests/families/minicpm_reference.py`.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer

from tests.checkpoint_text import build_tokenizer

VERSIONS = ("2.5", "2.6", "4.0")
FAMILIES = {"2.5": "minicpm_v_2_5", "2.6": "minicpm_v_2_6", "4.0": "minicpm_v_4_0"}
QUERIES = {"2.5": 6, "2.6": 4, "4.0": 4}
HIDDEN, VISION_HIDDEN, VISION_LAYERS, LAYERS, VOCAB_SIZE = 256, 32, 2, 2, 640
SIDE = 70  # places per side of the position table, as in the real ones: borders fall where theirs do
_SPECIAL = ("<unk>", "<image>", "</image>", "<ref>", "</ref>", "<box>", "</box>", "<slice>", "</slice>")
_NUMBERS = ("<image_id>", "</image_id>")
_LONGROPE = [1.0 + 0.05 * i for i in range(16)]

# Published with 2.5: it always opens the answer, and the first turn brings the beginning token.
_TEMPLATE_2_5 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
# ChatML as 2.6 has it: contents are strings.
_TEMPLATE_2_6 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@cache
def minicpm_tokenizer(version: str) -> Tokenizer:
    """Return the tests' Llama or Qwen tokenizer with MiniCPM-V's tokens added."""
    tokenizer = Tokenizer.from_str(build_tokenizer("llama" if version == "2.5" else "qwen").to_str())
    added = _SPECIAL if version == "2.5" else _SPECIAL + _NUMBERS
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in added])
    return tokenizer


def make_minicpm(version: str, path: Path, *, seed: int = 0) -> None:
    """Write a checkpoint of one of VERSIONS into `path`: weights, configs, tokenizer, template."""
    path.mkdir(parents=True, exist_ok=True)
    minicpm_tokenizer(version).save(str(path / "tokenizer.json"))
    llama = version == "2.5"
    settings: dict[str, Any] = {
        "tokenizer_class": "MiniCPMVTokenizerFast",
        "bos_token": "<|begin_of_text|>" if llama else None,
        "eos_token": "<|end_of_text|>" if llama else "<|im_end|>",
        "unk_token": "<unk>",
        "chat_template": _TEMPLATE_2_5 if llama else _TEMPLATE_2_6,
    }
    preprocessor: dict[str, Any] = {
        "image_processor_type": "MiniCPMVImageProcessor", "processor_class": "MiniCPMVProcessor", "max_slice_nums": 9,
        "scale_resolution": 448, "patch_size": 14, "image_feature_size": QUERIES[version], "im_start": "<image>",
        "im_end": "</image>", "slice_start": "<slice>", "slice_end": "</slice>", "unk": "<unk>",
        "norm_mean": [0.5, 0.5, 0.5], "norm_std": [0.5, 0.5, 0.5], "version": float(version),
    }  # fmt: skip
    if not llama:
        preprocessor |= {"use_image_id": True, "im_id_start": "<image_id>", "im_id_end": "</image_id>"}
        preprocessor["slice_mode"] = True
    _write_json(path / "tokenizer_config.json", settings)
    _write_json(path / "preprocessor_config.json", preprocessor)
    _write_json(path / "config.json", minicpm_config(version))
    _write_json(path / "generation_config.json", {"eos_token_id": minicpm_config(version)["eos_token_id"]})
    save_file(_random_tensors(version, seed), path / "model.safetensors", metadata={"format": "pt"})


def minicpm_config(version: str) -> dict[str, Any]:
    """Return config.json."""
    token_id = minicpm_tokenizer(version).token_to_id
    config: dict[str, Any] = {
        "version": version if version == "2.5" else float(version), "architectures": ["MiniCPMV"],
        "model_type": "minicpmv", "batch_vision_input": True, "drop_vision_last_layer": False, "hidden_act": "silu",
        "hidden_size": HIDDEN, "image_size": 448, "intermediate_size": 192, "max_position_embeddings": 8192,
        "num_attention_heads": 8, "num_hidden_layers": LAYERS, "num_key_value_heads": 2, "patch_size": 14,
        "query_num": QUERIES[version], "rms_norm_eps": 1e-6, "slice_mode": True, "tie_word_embeddings": False,
        "slice_config": {"max_slice_nums": 9, "patch_size": 14, "model_type": "minicpmv"}, "torch_dtype": "float32",
        "vocab_size": VOCAB_SIZE,
        "eos_token_id": token_id("<|end_of_text|>" if version == "2.5" else "<|im_end|>"),
        "vision_config": {
            "hidden_size": VISION_HIDDEN, "image_size": SIDE * 14, "intermediate_size": 44,
            "model_type": "idefics2" if version == "2.5" else "siglip", "num_attention_heads": 2,
            "num_hidden_layers": VISION_LAYERS, "patch_size": 14,
        },
    }  # fmt: skip
    if version == "2.5":
        return config | {"rope_theta": 500000.0, "rope_scaling": None, "attention_bias": False}
    config |= {"use_image_id": True, "vision_batch_size": 16}
    if version == "2.6":
        return config | {"rope_theta": 1000000.0, "sliding_window": 131072, "use_sliding_window": False}
    scaling = {"rope_type": "longrope", "short_factor": _LONGROPE, "long_factor": [2 * f for f in _LONGROPE]}
    return config | {
        "attention_bias": False,
        "head_dim": HIDDEN // 8,
        "rope_theta": 10000.0,
        "rope_scaling": scaling | {"original_max_position_embeddings": 4096},
    }


def minicpm_shapes(version: str) -> dict[str, tuple[int, ...]]:
    """Return the published tensor names with the tiny shapes."""
    shapes: dict[str, tuple[int, ...]] = {
        "llm.model.embed_tokens.weight": (VOCAB_SIZE, HIDDEN),
        "llm.model.norm.weight": (HIDDEN,),
        "llm.lm_head.weight": (VOCAB_SIZE, HIDDEN),
    }
    for index in range(LAYERS):
        layer = f"llm.model.layers.{index}."
        shapes |= {f"{layer}{name}.weight": (HIDDEN,) for name in ("input_layernorm", "post_attention_layernorm")}
        for name, heads in (("q", 8), ("k", 2), ("v", 2)):
            width = heads * HIDDEN // 8
            shapes |= {f"{layer}self_attn.{name}_proj.weight": (width, HIDDEN)}
            if version == "2.6":
                shapes |= {f"{layer}self_attn.{name}_proj.bias": (width,)}
        shapes |= {f"{layer}self_attn.o_proj.weight": (HIDDEN, HIDDEN), f"{layer}mlp.down_proj.weight": (HIDDEN, 192)}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (192, HIDDEN) for name in ("gate", "up")}
    return shapes | _tower_shapes() | _resampler_shapes(QUERIES[version])


def _tower_shapes() -> dict[str, tuple[int, ...]]:
    hidden = VISION_HIDDEN
    shapes: dict[str, tuple[int, ...]] = {
        "vpm.embeddings.patch_embedding.weight": (hidden, 3, 14, 14),
        "vpm.embeddings.patch_embedding.bias": (hidden,),
        "vpm.embeddings.position_embedding.weight": (SIDE * SIDE, hidden),
    }
    linears = {f"self_attn.{name}_proj": (hidden, hidden) for name in ("q", "k", "v", "out")}
    linears |= {"mlp.fc1": (44, hidden), "mlp.fc2": (hidden, 44)}
    for index in range(VISION_LAYERS):
        layer = f"vpm.encoder.layers.{index}."
        for name, shape in linears.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}{name}.weight": (hidden,), f"{layer}{name}.bias": (hidden,)}
    return shapes | {"vpm.post_layernorm.weight": (hidden,), "vpm.post_layernorm.bias": (hidden,)}


def _resampler_shapes(queries: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "resampler.query": (queries, HIDDEN),
        "resampler.proj": (HIDDEN, HIDDEN),
        "resampler.kv_proj.weight": (HIDDEN, VISION_HIDDEN),
        "resampler.attn.in_proj_weight": (3 * HIDDEN, HIDDEN),
        "resampler.attn.in_proj_bias": (3 * HIDDEN,),
        "resampler.attn.out_proj.weight": (HIDDEN, HIDDEN),
        "resampler.attn.out_proj.bias": (HIDDEN,),
    }
    for name in ("ln_q", "ln_kv", "ln_post"):
        shapes |= {f"resampler.{name}.weight": (HIDDEN,), f"resampler.{name}.bias": (HIDDEN,)}
    return shapes


def _random_tensors(version: str, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in sorted(minicpm_shapes(version).items()):
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            norm = name.endswith("weight")
            tensors[name] = 0.1 * noise + (1.0 if norm else 0.0)
        elif "embed_tokens" in name or "position_embedding" in name or name == "resampler.query":
            tensors[name] = 0.5 * noise
        else:
            tensors[name] = noise / math.sqrt(math.prod(shape[1:]))
    return tensors


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
