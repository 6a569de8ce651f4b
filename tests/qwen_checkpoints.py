"""Tiny random checkpoints of the first Qwen in the authors' layout, always the same for the same arguments.

    make_qwen("qwen_vl", tmp_path)

Names and values are those of the published files, but for the sizes. transformers cannot load them: what the authors'
own code says of them is in `tests/families/qwen_golden.json` and `.npz`.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

NAMES = ("qwen_vl", "qwen")
VOCABULARY = Path(__file__).with_name("tiny.tiktoken")
NUM_RANKS = sum(1 for _ in VOCABULARY.open("rb")) if VOCABULARY.exists() else 0
HIDDEN, LAYERS, MIDDLE, VOCAB_SIZE = 256, 2, 96, 2048
VISION_HIDDEN, VISION_LAYERS, MLP_RATIO = 32, 2, 4.9231
QUERIES = 16
SEQ_LENGTH = 128  # what the real ones have 2048 of: longer prompts turn otherwise


def make_qwen(name: str, path: Path, *, seed: int = 0, suffix: str = "safetensors") -> None:
    """Write a checkpoint of one of NAMES into `path`: weights, configs, vocabulary; suffix "bin": in torch's format."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(VOCABULARY, path / "qwen.tiktoken")
    _write_json(path / "config.json", qwen_config(name))
    _write_json(path / "tokenizer_config.json", {"model_max_length": 1024, "tokenizer_class": "QWenTokenizer"})
    end = NUM_RANKS
    generation = {"chat_format": "chatml", "eos_token_id": end, "pad_token_id": end, "max_window_size": 6144}
    generation |= {"max_new_tokens": 512, "do_sample": True, "top_k": 0, "top_p": 0.5}
    _write_json(path / "generation_config.json", generation)
    tensors = qwen_tensors(name, seed)
    if suffix == "safetensors":
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, held in shards.items():
        torch.save({each: tensors[each] for each in held}, path / file)
    where = {each: file for file, held in shards.items() for each in held}
    _write_json(path / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": where})


def qwen_config(name: str) -> dict[str, Any]:
    """Return config.json."""
    config: dict[str, Any] = {
        "architectures": ["QWenLMHeadModel"], "attn_dropout_prob": 0.0, "bf16": False, "emb_dropout_prob": 0.0,
        "fp16": False, "fp32": True, "hidden_size": HIDDEN, "initializer_range": 0.02, "intermediate_size": 2 * MIDDLE,
        "kv_channels": 64, "layer_norm_epsilon": 1e-06, "max_position_embeddings": 1024, "model_type": "qwen",
        "no_bias": True, "num_attention_heads": HIDDEN // 64, "num_hidden_layers": LAYERS, "onnx_safe": None,
        "rotary_emb_base": 10000, "rotary_pct": 1.0, "scale_attn_weights": True, "seq_length": SEQ_LENGTH,
        "tie_word_embeddings": False, "tokenizer_type": "QWenTokenizer", "torch_dtype": "float32",
        "transformers_version": "4.31.0", "use_cache": True, "use_dynamic_ntk": True, "use_flash_attn": False,
        "use_logn_attn": True, "vocab_size": VOCAB_SIZE,
    }  # fmt: skip
    if name == "qwen_vl":
        config["visual"] = {
            "heads": 2, "image_size": 448, "image_start_id": NUM_RANKS + 214, "layers": VISION_LAYERS,
            "mlp_ratio": MLP_RATIO, "n_queries": QUERIES, "output_dim": HIDDEN, "patch_size": 14,
            "width": VISION_HIDDEN,
        }  # fmt: skip
    return config


def qwen_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return the published tensor names with the tiny shapes."""
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCAB_SIZE, HIDDEN),
        "transformer.ln_f.weight": (HIDDEN,),
        "lm_head.weight": (VOCAB_SIZE, HIDDEN),
    }
    for index in range(LAYERS):
        layer = f"transformer.h.{index}."
        shapes |= {f"{layer}ln_1.weight": (HIDDEN,), f"{layer}ln_2.weight": (HIDDEN,)}
        shapes |= {f"{layer}attn.c_attn.weight": (3 * HIDDEN, HIDDEN), f"{layer}attn.c_attn.bias": (3 * HIDDEN,)}
        shapes |= {f"{layer}attn.c_proj.weight": (HIDDEN, HIDDEN), f"{layer}mlp.c_proj.weight": (HIDDEN, MIDDLE)}
        shapes |= {f"{layer}mlp.{each}.weight": (MIDDLE, HIDDEN) for each in ("w1", "w2")}
    return shapes | (_tower_shapes() if name == "qwen_vl" else {})


def _tower_shapes() -> dict[str, tuple[int, ...]]:
    hidden, middle = VISION_HIDDEN, int(VISION_HIDDEN * MLP_RATIO)
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (hidden, 3, 14, 14),
        "positional_embedding": (256, hidden),
        "proj": (HIDDEN, HIDDEN),
        "attn_pool.query": (QUERIES, HIDDEN),
        "attn_pool.pos_embed": (QUERIES, HIDDEN),
        "attn_pool.kv_proj.weight": (HIDDEN, hidden),
        "attn_pool.attn.in_proj_weight": (3 * HIDDEN, HIDDEN),
        "attn_pool.attn.in_proj_bias": (3 * HIDDEN,),
    }
    linears = {"attn_pool.attn.out_proj": (HIDDEN, HIDDEN)}
    norms = {"ln_pre": hidden, "ln_post": HIDDEN, "attn_pool.ln_q": HIDDEN, "attn_pool.ln_kv": HIDDEN}
    for index in range(VISION_LAYERS):
        layer = f"transformer.resblocks.{index}."
        linears |= {f"{layer}attn.in_proj": (3 * hidden, hidden), f"{layer}attn.out_proj": (hidden, hidden)}
        linears |= {f"{layer}mlp.c_fc": (middle, hidden), f"{layer}mlp.c_proj": (hidden, middle)}
        norms |= {f"{layer}ln_1": hidden, f"{layer}ln_2": hidden}
    for each, shape in linears.items():
        shapes |= {f"{each}.weight": shape, f"{each}.bias": shape[:1]}
    for each, width in norms.items():
        shapes |= {f"{each}.weight": (width,), f"{each}.bias": (width,)}
    return {f"transformer.visual.{each}": shape for each, shape in shapes.items()}


def qwen_tensors(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the weights; those of the decoder are the same for all NAMES."""
    tensors = {}
    for number, (each, shape) in enumerate(sorted(qwen_shapes("qwen_vl").items())):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + number))
        if len(shape) == 1:
            norm = each.endswith("weight")
            tensors[each] = 0.1 * noise + (1.0 if norm else 0.0)
        elif each.endswith(("wte.weight", "positional_embedding", "query", "pos_embed")):
            tensors[each] = 0.5 * noise
        else:
            tensors[each] = noise / math.sqrt(math.prod(shape[1:]))
    return {each: tensor for each, tensor in tensors.items() if each in qwen_shapes(name)}


def qwen_picture(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return noise over a slope: (height, width, 3)."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 180, width)[None, :, None] * np.linspace(0.3, 1, height)[:, None, None]
    return (slope + rng.integers(0, 76, (height, width, 3))).astype(np.uint8)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
