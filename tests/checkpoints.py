"""Tiny random checkpoints in the official layouts, one per family, always the same for the same arguments.

    make_checkpoint("qwen2_5_vl", tmp_path)              # as on the hub
    make_checkpoint("qwen3_vl", tmp_path, shards=3)      # sharded, with an index
    make_checkpoint("qwen2", tmp_path, layout="saved")   # config.json as transformers 5 writes it

Names and shapes are written out here, not taken from a library, so that loading them with transformers and with
Sensorium tests both readings. They are small, but GQA, M-RoPE, windows and deepstack are all at work.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from tests.checkpoint_audio import PREPROCESSOR, TOWER, audio_shapes
from tests.checkpoint_text import build_tokenizer, tokenizer_config
from tests.checkpoint_tiles import IMAGE as TILE_IMAGE
from tests.checkpoint_tiles import OUTER, tile_shapes

Layout = Literal["hub", "saved"]
Shapes = dict[str, tuple[int, ...]]

GRID_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # pictures of any size, M-RoPE
TILE_FAMILIES = ("llava", "internvl")  # squares of one size, plain positions
VISION_FAMILIES = (*GRID_FAMILIES, *TILE_FAMILIES)
AUDIO_FAMILIES = ("qwen2_audio",)
MEDIA_FAMILIES = (*VISION_FAMILIES, *AUDIO_FAMILIES)
FAMILIES = (*MEDIA_FAMILIES, "qwen2", "qwen3", "llama")

VOCAB_SIZE = 608  # more rows than the tokenizer has tokens, as in the real ones
HIDDEN = 64
LAYERS = 3
VISION_HIDDEN = 32

_ARCHITECTURES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
_TIED = {"qwen2_vl", "qwen3_vl", "qwen2"}
_QK_NORM = {"qwen3_vl", "qwen3"}
_QKV_BIAS = {"qwen2_vl", "qwen2_5_vl", "internvl", "qwen2_audio", "qwen2"}
_HEAD_DIM = {"qwen3_vl": 32, "qwen3": 32}  # not hidden / heads; elsewhere it is, and config.json is silent
_ROPE: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "qwen2_5_vl": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "qwen3_vl": {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True},
    "llama": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip
_VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "depth": 2, "embed_dim": VISION_HIDDEN, "hidden_size": HIDDEN, "mlp_ratio": 4, "num_heads": 2, "in_chans": 3,
        "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2,
    },
    "qwen2_5_vl": {
        "depth": 4, "hidden_act": "silu", "hidden_size": VISION_HIDDEN, "intermediate_size": 44, "num_heads": 2,
        "in_chans": 3, "out_hidden_size": HIDDEN, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
        "temporal_patch_size": 2, "window_size": 56, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2,
    },
    "qwen3_vl": {
        "depth": 4, "hidden_act": "gelu_pytorch_tanh", "hidden_size": VISION_HIDDEN, "intermediate_size": 48,
        "num_heads": 2, "in_channels": 3, "out_hidden_size": HIDDEN, "patch_size": 16, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2],
        "model_type": "qwen3_vl",
    },
}  # fmt: skip
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_IMAGE: dict[str, dict[str, Any]] = {
    "qwen2_vl": _CLIP | {"patch_size": 14, "min_pixels": 3136, "max_pixels": 200704},
    "qwen2_5_vl": _CLIP | {"patch_size": 14, "min_pixels": 3136, "max_pixels": 200704},
    "qwen3_vl": {
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "patch_size": 16,
        "size": {"shortest_edge": 4096, "longest_edge": 262144},
    },
}  # fmt: skip


def make_checkpoint(
    family: str, path: Path, *, shards: int = 1, layout: Layout = "hub", dtype: str = "float32", seed: int = 0
) -> None:
    """Write a checkpoint of `family` (one of FAMILIES) into `path`: weights, configs, tokenizer, template.

    Args:
        shards: number of safetensors files; more than one come with model.safetensors.index.json.
        layout: "hub" is what the publishers wrote, "saved" what `save_pretrained` of transformers 5 writes.
        dtype: of the tensors and in config.json: "float32" or "bfloat16".
    """
    path.mkdir(parents=True, exist_ok=True)
    kind = tokenizer_kind(family)
    template = {"qwen2_5_vl": "qwen2_vl", "qwen2": "qwen2_vl", "qwen3_vl": "qwen3"}.get(family, family)
    tokenizer = build_tokenizer(kind)
    tokenizer.save(str(path / "tokenizer.json"))
    ends = ("<|eot_id|>", "<|end_of_text|>") if kind in ("llama", "llava") else ("<|im_end|>", "<|endoftext|>")
    generation = {"eos_token_id": [tokenizer.token_to_id(end) for end in ends], "do_sample": True, "temperature": 0.7}
    _write_json(path / "tokenizer_config.json", tokenizer_config(kind, template))
    _write_json(path / "generation_config.json", generation | {"top_p": 0.8, "top_k": 20})
    _write_json(path / "config.json", model_config(family, layout, dtype))
    if family in TILE_FAMILIES:
        _write_json(path / "preprocessor_config.json", TILE_IMAGE[family])
    elif family in AUDIO_FAMILIES:
        _write_json(path / "preprocessor_config.json", PREPROCESSOR)
    elif family in VISION_FAMILIES:
        preprocessor = {"image_processor_type": "Qwen2VLImageProcessor", "temporal_patch_size": 2, "merge_size": 2}
        _write_json(path / "preprocessor_config.json", preprocessor | _IMAGE[family])
    _write_weights(path, _random_tensors(tensor_shapes(family, layout), seed, getattr(torch, dtype)), shards)


def tokenizer_kind(family: str) -> str:
    """Return which tokenizer of `checkpoint_text` the tiny `family` has."""
    return family if family in ("llama", *TILE_FAMILIES, *AUDIO_FAMILIES) else "qwen"


def model_config(family: str, layout: Layout = "hub", dtype: str = "float32") -> dict[str, Any]:
    """Return config.json of the tiny `family`."""
    kind = tokenizer_kind(family)
    by_llama = kind in ("llama", "llava")
    token_id = build_tokenizer(kind).token_to_id
    text: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE, "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096, "initializer_range": 0.02, "attention_dropout": 0.0, "use_cache": True,
        "bos_token_id": token_id("<|begin_of_text|>" if by_llama else "<|endoftext|>"),
        "eos_token_id": token_id("<|eot_id|>" if by_llama else "<|im_end|>"),
    }  # fmt: skip
    if family in _HEAD_DIM:
        text["head_dim"] = _HEAD_DIM[family]
    if by_llama or family in _QK_NORM:
        text["attention_bias"] = False
    rope = _ROPE.get(family, {})
    if layout == "saved":
        saved = {"rope_type": "default"} | rope
        text["rope_parameters"] = saved | {"rope_theta": _theta(family)}
    else:
        text |= {"rope_theta": _theta(family)} | ({"rope_scaling": rope} if rope else {})
    outer: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        "tie_word_embeddings": family in _TIED,
        "torch_dtype" if layout == "hub" else "dtype": dtype,
    }
    if family not in MEDIA_FAMILIES:
        return text | outer
    if family in AUDIO_FAMILIES:
        parts = {"audio_config": TOWER, "text_config": text | {"model_type": "qwen2"}}
        return outer | parts | {"audio_token_index": token_id("<|AUDIO|>")}
    if family in TILE_FAMILIES:
        key, placeholder, text_type, rest = OUTER[family]
        return outer | rest | {key: token_id(placeholder), "text_config": text | {"model_type": text_type}}
    outer |= {
        "vision_config": _VISION[family],
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
    }
    if layout == "saved":
        model_type = f"{family}_vision"
        outer["vision_config"] = outer["vision_config"] | {
            "model_type": model_type,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "axial"},
        }
    if layout == "saved" or family == "qwen3_vl":
        return outer | {"text_config": text | {"model_type": f"{family}_text"}}
    return outer | text


def tensor_shapes(family: str, layout: Layout = "hub") -> Shapes:
    """Return the hub's tensor names and shapes of the tiny `family`; tile families have others where saved."""
    if family not in MEDIA_FAMILIES:
        return _decoder_shapes(family, "model.")
    if family in AUDIO_FAMILIES:
        text = _decoder_shapes(family, "model.")
        return {f"language_model.{name}": shape for name, shape in text.items()} | audio_shapes(HIDDEN)
    if family in TILE_FAMILIES:
        text = _decoder_shapes(family, "model.")
        if layout == "saved":
            decoder = {name.replace("model.", "model.language_model."): shape for name, shape in text.items()}
        else:
            decoder = {f"language_model.{name}": shape for name, shape in text.items()}
        before = "model." if layout == "saved" else ""
        return decoder | {before + name: shape for name, shape in tile_shapes(family, HIDDEN).items()}
    prefix = "model.language_model." if family == "qwen3_vl" else "model."
    tower = "model.visual." if family == "qwen3_vl" else "visual."
    towers = {"qwen2_vl": _qwen2_tower, "qwen2_5_vl": _qwen2_5_tower, "qwen3_vl": _qwen3_tower}
    return _decoder_shapes(family, prefix) | {tower + name: shape for name, shape in towers[family]().items()}


def _theta(family: str) -> float:
    return 500000.0 if family == "llama" else 1000000.0


def _linear(name: str, out_features: int, in_features: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (out_features, in_features)}
    return weight | ({f"{name}.bias": (out_features,)} if bias else {})


def _norm(name: str, size: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (size,)} | ({f"{name}.bias": (size,)} if bias else {})


def _decoder_shapes(family: str, prefix: str) -> Shapes:
    head_dim = _HEAD_DIM.get(family, HIDDEN // 4)
    shapes: Shapes = {f"{prefix}embed_tokens.weight": (VOCAB_SIZE, HIDDEN)}
    for index in range(LAYERS):
        layer = f"{prefix}layers.{index}."
        bias = family in _QKV_BIAS
        shapes |= _norm(f"{layer}input_layernorm", HIDDEN, bias=False)
        shapes |= _norm(f"{layer}post_attention_layernorm", HIDDEN, bias=False)
        for name, heads in (("q", 4), ("k", 2), ("v", 2)):
            shapes |= _linear(f"{layer}self_attn.{name}_proj", heads * head_dim, HIDDEN, bias)
        shapes |= _linear(f"{layer}self_attn.o_proj", HIDDEN, 4 * head_dim, bias=False)
        if family in _QK_NORM:
            shapes |= _norm(f"{layer}self_attn.q_norm", head_dim, bias=False)
            shapes |= _norm(f"{layer}self_attn.k_norm", head_dim, bias=False)
        shapes |= _linear(f"{layer}mlp.gate_proj", 96, HIDDEN, bias=False)
        shapes |= _linear(f"{layer}mlp.up_proj", 96, HIDDEN, bias=False)
        shapes |= _linear(f"{layer}mlp.down_proj", HIDDEN, 96, bias=False)
    shapes |= _norm(f"{prefix}norm", HIDDEN, bias=False)
    return shapes if family in _TIED else shapes | {"lm_head.weight": (VOCAB_SIZE, HIDDEN)}


def _attention_shapes(block: str, norm_bias: bool) -> Shapes:
    return {
        **_norm(f"{block}norm1", VISION_HIDDEN, norm_bias),
        **_norm(f"{block}norm2", VISION_HIDDEN, norm_bias),
        **_linear(f"{block}attn.qkv", 3 * VISION_HIDDEN, VISION_HIDDEN),
        **_linear(f"{block}attn.proj", VISION_HIDDEN, VISION_HIDDEN),
    }


def _qwen2_tower() -> Shapes:
    shapes: Shapes = {"patch_embed.proj.weight": (VISION_HIDDEN, 3, 2, 14, 14)}
    for index in range(_VISION["qwen2_vl"]["depth"]):
        block = f"blocks.{index}."
        shapes |= _attention_shapes(block, norm_bias=True)
        shapes |= _linear(f"{block}mlp.fc1", 4 * VISION_HIDDEN, VISION_HIDDEN)
        shapes |= _linear(f"{block}mlp.fc2", VISION_HIDDEN, 4 * VISION_HIDDEN)
    merged = 4 * VISION_HIDDEN
    shapes |= _norm("merger.ln_q", VISION_HIDDEN)
    return shapes | _linear("merger.mlp.0", merged, merged) | _linear("merger.mlp.2", HIDDEN, merged)


def _qwen2_5_tower() -> Shapes:
    shapes: Shapes = {"patch_embed.proj.weight": (VISION_HIDDEN, 3, 2, 14, 14)}
    size = _VISION["qwen2_5_vl"]["intermediate_size"]
    for index in range(_VISION["qwen2_5_vl"]["depth"]):
        block = f"blocks.{index}."
        shapes |= _attention_shapes(block, norm_bias=False)
        shapes |= _linear(f"{block}mlp.gate_proj", size, VISION_HIDDEN)
        shapes |= _linear(f"{block}mlp.up_proj", size, VISION_HIDDEN)
        shapes |= _linear(f"{block}mlp.down_proj", VISION_HIDDEN, size)
    merged = 4 * VISION_HIDDEN
    shapes |= _norm("merger.ln_q", VISION_HIDDEN, bias=False)
    return shapes | _linear("merger.mlp.0", merged, merged) | _linear("merger.mlp.2", HIDDEN, merged)


def _qwen3_tower() -> Shapes:
    vision = _VISION["qwen3_vl"]
    shapes: Shapes = {
        "patch_embed.proj.weight": (VISION_HIDDEN, 3, 2, 16, 16),
        "patch_embed.proj.bias": (VISION_HIDDEN,),
        "pos_embed.weight": (vision["num_position_embeddings"], VISION_HIDDEN),
    }
    for index in range(vision["depth"]):
        block = f"blocks.{index}."
        shapes |= _attention_shapes(block, norm_bias=True)
        shapes |= _linear(f"{block}mlp.linear_fc1", vision["intermediate_size"], VISION_HIDDEN)
        shapes |= _linear(f"{block}mlp.linear_fc2", VISION_HIDDEN, vision["intermediate_size"])
    merged = 4 * VISION_HIDDEN
    mergers = [("merger", VISION_HIDDEN)]
    mergers += [(f"deepstack_merger_list.{i}", merged) for i in range(len(vision["deepstack_visual_indexes"]))]
    for name, norm_size in mergers:
        shapes |= _norm(f"{name}.norm", norm_size)
        shapes |= _linear(f"{name}.linear_fc1", merged, merged) | _linear(f"{name}.linear_fc2", HIDDEN, merged)
    return shapes


def _random_tensors(shapes: Shapes, seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            scale = 0.5 if "lambda_" in name else 0.0
            tensor = 0.1 * noise + scale + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif any(part in name for part in ("embed_tokens", "pos_embed", "position_embedding", "embed_positions")):
            tensor = 0.5 * noise
        else:
            tensor = noise / math.sqrt(math.prod(shape[1:]))  # more, and rounding errors would grow from layer to layer
        tensors[name] = tensor.to(dtype)
    return tensors


def _write_weights(path: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    size = math.ceil(len(names) / shards)
    weight_map = {}
    for index in range(shards):
        part = names[index * size : (index + 1) * size]
        file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name] for name in part}, path / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(path / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
