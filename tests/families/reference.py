"""What transformers says about a tiny checkpoint: the side to be equal to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, Qwen2AudioForConditionalGeneration

from sensorium.families import find
from sensorium.families.family import EncoderInput
from tests.checkpoints import AUDIO_FAMILIES, GRID_FAMILIES, VISION_FAMILIES


def loader(family: str) -> Any:
    """Return the class of transformers that loads checkpoints of `family`."""
    if family in AUDIO_FAMILIES:
        return Qwen2AudioForConditionalGeneration
    return AutoModelForImageTextToText if family in VISION_FAMILIES else AutoModelForCausalLM


@cache
def reference_model(path: Path) -> Any:
    """Return transformers' fp32 model of the checkpoint, loaded once per session."""
    family = find(json.loads((path / "config.json").read_text())).name
    return loader(family).from_pretrained(path, dtype=torch.float32).eval()


def token_types(token_ids: Sequence[int], image_token_id: int) -> torch.Tensor:
    """(1, n): 1 where an image's placeholder stands, as transformers' processors give it."""
    return (torch.tensor([list(token_ids)]) == image_token_id).int()


def reference_logits(
    path: Path, family: str, token_ids: Sequence[int], images: Sequence[EncoderInput] = ()
) -> torch.Tensor:
    """Return (n, vocab_size) fp32 logits of a prompt whose placeholders are already there, one per media token."""
    model = reference_model(path)
    inputs: dict[str, Any] = {"input_ids": torch.tensor([list(token_ids)])}
    if images and family in AUDIO_FAMILIES:
        inputs |= _windows(images, 2 * model.config.audio_config.max_source_positions)
    elif images:
        inputs["pixel_values"] = torch.cat([image.tensors["pixel_values"] for image in images])
        if family in GRID_FAMILIES:
            inputs |= {
                "image_grid_thw": torch.tensor([image.layout.grid for image in images]),
                "mm_token_type_ids": token_types(token_ids, model.config.image_token_id),
            }
            model.model.rope_deltas = None  # it remembers the last prompt's
    with torch.inference_mode():
        logits: torch.Tensor = model(**inputs).logits[0]
    return logits.float()


def _windows(clips: Sequence[EncoderInput], num_frames: int) -> dict[str, torch.Tensor]:
    """Clips as transformers wants them: all of one length, with a mask of the frames that count."""
    features = torch.zeros(len(clips), clips[0].tensors["input_features"].shape[0], num_frames)
    mask = torch.zeros(len(clips), num_frames, dtype=torch.long)
    for row, ones, clip in zip(features, mask, clips, strict=True):
        mel = clip.tensors["input_features"]
        row[:] = mel.min()
        row[:, : mel.shape[1]] = mel
        ones[: mel.shape[1] // 2 * 2] = 1
    return {"input_features": features, "feature_attention_mask": mask}


def reference_features(path: Path, images: Sequence[EncoderInput]) -> list[torch.Tensor]:
    """Return transformers' encoder output per image, (num_slots, out_features), deepstack behind the final ones."""
    tower = reference_model(path).model
    inputs = {"pixel_values": torch.cat([image.tensors["pixel_values"] for image in images])}
    if any(images[0].layout.grid):
        inputs["image_grid_thw"] = torch.tensor([image.layout.grid for image in images])
    with torch.inference_mode():
        result = tower.get_image_features(**inputs, return_dict=True)
    layers = [result.pooler_output, *(getattr(result, "deepstack_features", None) or ())]
    rows = [torch.cat([part.flatten(0, -2) for part in layer]) for layer in layers]
    return list(torch.cat(rows, dim=1).split([image.layout.num_slots for image in images]))
