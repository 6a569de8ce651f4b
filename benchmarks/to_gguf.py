"""Write a Qwen2 checkpoint as GGUF, every bit of its bf16 weights kept.  LLAMA_PYTHON to_gguf.py FOLDER FILE.gguf"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found]
import numpy as np


def convert(folder: Path, target: Path) -> None:
    """Write `target` from config.json, tokenizer.json and model.safetensors of `folder`."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "qwen2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text("utf-8")), config)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    for name, bits in _bf16_tensors(folder / "model.safetensors"):
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if bits.ndim == 1:  # norms and biases: llama.cpp wants fp32; bf16 is its upper half
            writer.add_tensor(gguf_name, (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(gguf_name, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(target)


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    tokens = [f"[unused{i}]" for i in range(config["vocab_size"])]
    for text, i in tokenizer["model"]["vocab"].items():
        tokens[i] = text
    types = [int(gguf.TokenType.NORMAL)] * len(tokens)
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = int(gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])


def _bf16_tensors(path: Path) -> list[tuple[str, Any]]:
    """Name and raw 16-bit patterns of every tensor; safetensors' numpy reader knows no bf16."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    tensors = []
    for name, entry in header.items():
        assert entry["dtype"] == "BF16", f"{name} is {entry['dtype']}"
        offset = 8 + header_bytes + entry["data_offsets"][0]
        tensors.append((name, np.memmap(path, np.uint16, "r", offset, tuple(entry["shape"]))))
    return tensors


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
