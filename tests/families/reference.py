"""What transformers says about a tiny checkpoint: the side to be equal to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from sensorium.families.family import EncoderInput
from tests.checkpoints import GRID_FAMILIES, VISION_FAMILIES


@cache
def reference_model(path: Path, vision: bool) -> Any:
    """Return transformers' fp32 model of the checkpoint, loaded once per session."""
    loader = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    return loader.from_pretrained(path, dtype=torch.float32).eval()


def token_types(token_ids: Sequence[int], image_token_id: int) -> torch.Tensor:
    """(1, n): 1 where an image's placeholder stands, as transformers' processors give it."""
    return (torch.tensor([list(token_ids)]) == image_token_id).int()


def reference_logits(
    path: Path, family: str, token_ids: Sequence[int], images: Sequence[EncoderInput] = ()
) -> torch.Tensor:
    """Return (n, vocab_size) fp32 logits of a prompt whose placeholders are already there, one per image token."""
    model = reference_model(path, family in VISION_FAMILIES)
    inputs: dict[str, Any] = {"input_ids": torch.tensor([list(token_ids)])}
    if images:
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


def reference_features(path: Path, images: Sequence[EncoderInput]) -> list[torch.Tensor]:
    """Return transformers' encoder output per image, (num_slots, out_features), deepstack behind the final ones."""
    tower = reference_model(path, True).model
    inputs = {"pixel_values": torch.cat([image.tensors["pixel_values"] for image in images])}
    if any(images[0].layout.grid):
        inputs["image_grid_thw"] = torch.tensor([image.layout.grid for image in images])
    with torch.inference_mode():
        result = tower.get_image_features(**inputs, return_dict=True)
    layers = [result.pooler_output, *(getattr(result, "deepstack_features", None) or ())]
    rows = [torch.cat([part.flatten(0, -2) for part in layer]) for layer in layers]
    return list(torch.cat(rows, dim=1).split([image.layout.num_slots for image in images]))
