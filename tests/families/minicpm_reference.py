"""MiniCPM-V as its authors compose it, from transformers' decoders and SigLIP layers and torch's own attention.

Patches are padded to the longest slice of the batch and masked, as in their `modeling_minicpmv.py`; ours are not.
2.5 goes slice by slice, as with `batch_vision_input` false: see `model/encoders/navit.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

from sensorium.families.family import EncoderInput, MediaSpan

_TEXT_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
)  # fmt: skip


class _Resampler(nn.Module):
    def __init__(self, queries: int, width: int, kv_width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.kv_proj = nn.Linear(kv_width, width, bias=False)
        self.attn = nn.MultiheadAttention(width, width // 128)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, x: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
        """(num_slices, longest, kv_width) -> (num_slices, queries, width)."""
        codes = [torch.from_numpy(_codes(rows, columns, self.query.shape[1])) for rows, columns in sizes]
        padding = torch.arange(x.shape[1])[None] >= torch.tensor([len(each) for each in codes])[:, None]
        values = self.ln_kv(self.kv_proj(x)).transpose(0, 1)  # (longest, num_slices, width)
        queries = self.ln_q(self.query)[:, None].repeat(1, len(sizes), 1)
        seen = self.attn(queries, values + pad_sequence(codes), values, key_padding_mask=padding)[0]
        return self.ln_post(seen.transpose(0, 1)) @ self.proj


def _codes(rows: int, columns: int, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(rows * columns, width): for each patch the codes of its column, then those of its row."""
    rates = (1.0 / 10000 ** (np.arange(width // 4, dtype=np.float32) / (width / 4.0))).astype(np.float32)
    places = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2, 1).astype(np.float32)
    angles = places * rates  # (patches, 2, width / 4)
    return np.concatenate([np.sin(angles), np.cos(angles)], -1).reshape(-1, width)


class Reference(nn.Module):
    """The whole model; its parameters have the published names."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        text = {key: config[key] for key in _TEXT_KEYS}
        rope = {"rope_theta": config["rope_theta"], **(config.get("rope_scaling") or {"rope_type": "default"})}
        self.llm: Any
        if config["version"] == 2.6:
            self.llm = Qwen2ForCausalLM(Qwen2Config(**text, rope_parameters=rope))
        else:
            self.llm = LlamaForCausalLM(LlamaConfig(**text, rope_parameters=rope))
        vision = {key: value for key, value in config["vision_config"].items() if key != "model_type"}
        self.vpm = Idefics2VisionTransformer(Idefics2VisionConfig(**vision))
        self.resampler = _Resampler(config["query_num"], config["hidden_size"], vision["hidden_size"])
        self.one_by_one = config["version"] == "2.5"
        self.side = vision["image_size"] // 14

    def features(self, pixels: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Slices of (patches, 588) -> (num_slices, queries, width)."""
        if self.one_by_one and len(pixels) > 1:
            return torch.cat([self.features([p], [s]) for p, s in zip(pixels, sizes, strict=True)])
        side_by_side = pad_sequence(list(pixels), batch_first=True)  # (num_slices, longest, 3 * 14 * 14)
        strips = side_by_side.view(len(pixels), -1, 3, 14, 14).permute(0, 2, 3, 1, 4).flatten(3)
        x = self.vpm.embeddings.patch_embedding(strips).flatten(2).transpose(1, 2)
        places = pad_sequence([self._places(*size) for size in sizes], batch_first=True)
        x = x + self.vpm.embeddings.position_embedding(places)
        real = torch.arange(x.shape[1])[None] < torch.tensor([rows * columns for rows, columns in sizes])[:, None]
        hidden = torch.zeros(real.shape).masked_fill(~real, torch.finfo(torch.float32).min)
        mask = hidden[:, None, None].expand(-1, 1, x.shape[1], -1)
        x = self.vpm.encoder(inputs_embeds=x, attention_mask=mask).last_hidden_state
        return self.resampler(self.vpm.post_layernorm(x), sizes)

    def _places(self, rows: int, columns: int) -> torch.Tensor:
        if self.one_by_one:
            rows, columns = 1, rows * columns
        borders = torch.arange(1 / self.side, 1.0, 1 / self.side)
        down, across = (
            torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / count), borders, right=True)
            for count in torch.tensor([rows, columns], dtype=torch.int32)
        )
        return (down[:, None] * self.side + across).flatten()

    def of_item(self, item: EncoderInput) -> torch.Tensor:
        """(num_slots, width) of one picture."""
        return self.of_items([item])[0]

    def of_items(self, items: Sequence[EncoderInput]) -> list[torch.Tensor]:
        """The same of pictures in one padded batch."""
        sizes = [(rows, columns) for item in items for rows, columns in item.tensors["tgt_sizes"].tolist()]
        pixels = torch.cat([item.tensors["pixel_values"] for item in items])
        rows = self.features(torch.split(pixels, [h * w for h, w in sizes]), sizes).flatten(0, 1)
        return list(torch.split(rows, [item.layout.num_slots for item in items]))

    def logits(
        self, token_ids: Sequence[int], spans: Sequence[MediaSpan] = (), items: Sequence[EncoderInput] = ()
    ) -> torch.Tensor:
        """(n, vocab_size) of a prompt in which `spans` are `items`."""
        x = self.llm.get_input_embeddings()(torch.tensor([list(token_ids)])).clone()
        for span, item in zip(spans, items, strict=True):
            features, start = self.of_item(item), 0
            for first, length in span.layout.runs:
                x[0, span.offset + first : span.offset + first + length] = features[start : start + length]
                start += length
        logits: torch.Tensor = self.llm(inputs_embeds=x).logits[0]
        return logits


@cache
def reference(path: Path) -> Reference:
    """Load the checkpoint, every tensor of it and nothing else."""
    model = Reference(json.loads((path / "config.json").read_text())).eval()
    model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    return model
