"""Random checkpoints in the official layout: a text model of Qwen2's shape and a Qwen3-VL, about 0.5 B each.

python benchmarks/checkpoints.py text|vision FOLDER     (needs transformers, for the official tensor names)
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tokenizer_files import write_tokenizer

TEXT: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "torch_dtype": "bfloat16",
}
VISION: dict[str, Any] = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "qwen3_vl_text",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "hidden_act": "silu",
        "attention_bias": False,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5000000,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [12, 10, 10]},
        "tie_word_embeddings": True,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "dtype": "bfloat16",
    },
    "vision_config": {
        "model_type": "qwen3_vl",
        "hidden_size": 768,
        "depth": 12,
        "num_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu_pytorch_tanh",
        "in_channels": 3,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 896,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [3, 6, 9],
        "initializer_range": 0.02,
    },
}
PATCHES: dict[str, Any] = {
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
}
IMAGES = PATCHES | {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
VIDEOS = PATCHES | {
    "size": {"longest_edge": 25165824, "shortest_edge": 4096},
    "video_processor_type": "Qwen3VLVideoProcessor",
}
GENERATION = {"do_sample": False, "bos_token_id": 151643, "pad_token_id": 151643, "eos_token_id": [151645, 151643]}


def write(kind: str, folder: Path) -> None:
    """Make the `kind` ("text" or "vision") checkpoint. The folder appears only when it is whole."""
    import torch
    import transformers

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    config = TEXT if kind == "text" else VISION
    _write_json(part / "config.json", config)
    torch.manual_seed(0)
    network = getattr(transformers, config["architectures"][0])(transformers.AutoConfig.from_pretrained(part))
    network.to(torch.bfloat16).save_pretrained(part)
    print(f"{folder.name}: {sum(p.numel() for p in network.parameters()) / 1e6:.0f} M parameters", flush=True)

    _write_json(part / "config.json", config)  # save_pretrained wrote its own form; the hub has this one
    _write_json(part / "generation_config.json", GENERATION)
    write_tokenizer(part)
    if kind == "vision":
        _write_json(part / "preprocessor_config.json", IMAGES)
        _write_json(part / "video_preprocessor_config.json", VIDEOS)
    part.rename(folder)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
