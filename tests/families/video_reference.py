"""What transformers makes of frames, without torchvision, which its video processors want for resizing only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as resize_of_pictures
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as resize_of_videos

from sensorium.families.family import EncoderInput
from sensorium.families.qwen_video import QwenVideoProcessor
from tests.families.reference import reference_model


def reference_size(name: str, frames: int, height: int, width: int, low: int, high: int) -> tuple[int, int]:
    """Return the (height, width) to which transformers resizes frames."""
    if name == "qwen3_vl":
        return resize_of_videos(max(frames, 2), height, width, 2, 32, low, high)
    return resize_of_pictures(height, width, 28, low, high)


def reference_pixels(ours: QwenVideoProcessor, frames: npt.NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    """Return (num_patches, patch) fp32: resized as torchvision does, then through transformers' own code."""
    videos = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    videos = torch.nn.functional.interpolate(videos, size, mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (ours.frame.mean, ours.frame.std))
    values = (videos.float() * ours.frame.rescale - mean) / std
    patches: torch.Tensor = Qwen3VLVideoProcessor().patchify(values[None], ours.frame.patch_size, 2, 2)[0]
    return patches[0]


def stamped_text(indices: Sequence[int], fps: float, grid: tuple[int, int, int]) -> str:
    """Return what transformers' Qwen3-VL processor writes for a video."""
    tokens = {"video_token": "<|video_pad|>", "vision_start_token": "<|vision_start|>"}
    processor: Any = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        vision_end_token="<|vision_end|>",
        **tokens,
    )
    processor._calculate_timestamps = Qwen3VLProcessor._calculate_timestamps.__get__(processor)
    metadata = SimpleNamespace(fps=fps, frames_indices=list(indices))
    inputs = {"video_grid_thw": torch.tensor([grid]), "video_metadata": [metadata]}
    text: str = Qwen3VLProcessor.replace_video_token(processor, inputs, 0)
    return text


def reference_inputs(
    path: Path, token_ids: Sequence[int], items: Sequence[EncoderInput], kinds: Sequence[str], seconds: Sequence[float]
) -> dict[str, Any]:
    """Return what transformers' model takes; `seconds` are those of one pair of frames, by video."""
    config = reference_model(path).config
    ids = torch.tensor([list(token_ids)])
    types = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
    inputs: dict[str, Any] = {"input_ids": ids, "mm_token_type_ids": types}
    for kind, pixels, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        chosen = [item for item, each in zip(items, kinds, strict=True) if each == kind]
        if chosen:
            inputs[pixels] = torch.cat([item.tensors["pixel_values"] for item in chosen])
            inputs[grid] = torch.tensor([item.layout.grid for item in chosen])
    if config.model_type == "qwen2_5_vl" and "video_grid_thw" in inputs:
        inputs["second_per_grid_ts"] = torch.tensor(list(seconds))
    return inputs


def reference_logits(path: Path, inputs: dict[str, Any], positions: torch.Tensor) -> torch.Tensor:
    """Return (n, vocab_size) fp32 logits of every token, placed at `positions`, (3, 1, n)."""
    model = reference_model(path)
    model.model.rope_deltas = None  # it remembers the last prompt's
    with torch.inference_mode():
        logits: torch.Tensor = model(**inputs, position_ids=positions).logits[0]
    return logits.float()
