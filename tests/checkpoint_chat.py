"""InternVL as its authors publish it, made from a checkpoint in transformers' layout: renamed, fused, reordered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint

_TOWER = (
    ("vision_tower.", "vision_model."),
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"),
    ("embeddings.position_embeddings", "embeddings.position_embedding"),
    ("encoder.layer.", "encoder.layers."),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("lambda_", "ls"),
    ("attention.projection_layer", "attn.proj"),
    ("multi_modal_projector.layer_norm", "mlp1.0"),
    ("multi_modal_projector.linear_1", "mlp1.1"),
    ("multi_modal_projector.linear_2", "mlp1.3"),
)
_INTERNLM2 = (
    ("embed_tokens", "tok_embeddings"),
    ("lm_head", "output"),
    ("self_attn.o_proj", "attention.wo"),
    ("input_layernorm", "attention_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "feed_forward.w1"),
    ("mlp.up_proj", "feed_forward.w3"),
    ("mlp.down_proj", "feed_forward.w2"),
)
Tensors = dict[str, torch.Tensor]


def write_internvl_chat(hf: Path, chat: Path, decoder: str) -> None:
    """Write one model twice: into `hf` for transformers, into `chat` as its authors would.

    Args:
        decoder: "qwen2", or "internlm2", which for transformers is a Llama.
    """
    make_checkpoint("internvl", hf)
    config = json.loads((hf / "config.json").read_text())
    tensors = load_file(hf / "model.safetensors")
    if decoder == "internlm2":
        config["text_config"] |= {"model_type": "llama", "attention_bias": False}
        tensors = {name: tensor for name, tensor in tensors.items() if not _is_text_bias(name)}
        save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
        (hf / "config.json").write_text(json.dumps(config))
    shutil.copytree(hf, chat)
    (chat / "preprocessor_config.json").unlink()
    (chat / "config.json").write_text(json.dumps(_config(config, decoder)))
    renamed = _fused_tower(_renamed(tensors, _TOWER))
    if decoder == "internlm2":
        renamed = _renamed(_fused_text(renamed), _INTERNLM2)
    save_file({name: t.contiguous() for name, t in renamed.items()}, chat / "model.safetensors")


def _is_text_bias(name: str) -> bool:
    return name.startswith("language_model.") and name.endswith("_proj.bias")


def _config(config: dict[str, Any], decoder: str) -> dict[str, Any]:
    tower = config["vision_config"]
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "llm_config": config["text_config"] | {"model_type": decoder},
        "vision_config": {
            "hidden_size": tower["hidden_size"],
            "image_size": 56,
            "intermediate_size": tower["intermediate_size"],
            "num_attention_heads": 2,
            "num_hidden_layers": tower["num_hidden_layers"],
            "patch_size": 14,
            "qkv_bias": True,
            "qk_normalization": False,
            "norm_type": "layer_norm",
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu",
        },
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "force_image_size": 56,
        "dynamic_image_size": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "use_thumbnail": True,
        "torch_dtype": "float32",
    }


def _renamed(tensors: Tensors, pairs: tuple[tuple[str, str], ...]) -> Tensors:
    result = {}
    for name, tensor in tensors.items():
        new = name
        for ours, theirs in pairs:
            new = new.replace(ours, theirs)
        result[new] = tensor
    return result


def _fused_tower(tensors: Tensors) -> Tensors:
    """Put q, k and v one under the other."""
    result = {name: t for name, t in tensors.items() if ".attention." not in name}
    for name in [name for name in tensors if ".attention.q_proj." in name]:
        parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
        result[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    return result


def _fused_text(tensors: Tensors) -> Tensors:
    """Lay out by heads of k and v (there are 2, each for 2 heads of q): its q heads, its k, its v."""
    result = {name: t for name, t in tensors.items() if not any(f".{part}_proj." in name for part in "qkv")}
    for name in [name for name in tensors if ".self_attn.q_proj." in name]:
        q, k, v = (tensors[name.replace("q_proj", f"{part}_proj")].view(2, -1, 16, 64) for part in "qkv")
        result[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat([q, k, v], dim=1).view(-1, 64)
    return result
