"""Writes a checkpoint in the layout of the Hugging Face hub."""

import json
from pathlib import Path

import torch

from . import tokenizer
from .model import MAX_PIXELS, MERGE, MIN_PIXELS, PATCH


def _write(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def export(net, tok, folder: Path) -> None:
    from safetensors.torch import save_file

    folder = Path(folder)
    tokenizer.save(tok, folder)
    tensors = {}
    for name, value in net.state_dict().items():
        if name != "lm_head.weight":  # tied to the embedding
            tensors[name] = value.detach().to(torch.bfloat16).contiguous()
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = net.config.to_dict()
    config["architectures"] = ["Qwen3VLForConditionalGeneration"]
    config["dtype"] = config["text_config"]["dtype"] = config["vision_config"]["dtype"] = "bfloat16"
    _write(folder / "config.json", config)
    _write(folder / "preprocessor_config.json", {
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        "patch_size": PATCH, "temporal_patch_size": 2, "merge_size": MERGE,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
        "resample": 3, "rescale_factor": 1 / 255,
        "processor_class": "Qwen3VLProcessor", "image_processor_type": "Qwen2VLImageProcessorFast",
    })
    ids = tokenizer.ids(tok)
    _write(folder / "generation_config.json", {
        "do_sample": False, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"], "max_new_tokens": 256,
    })
