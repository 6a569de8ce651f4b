"""Resizes and cuts pictures exactly as Qwen's image processor does."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from sensorium.families.qwen_video_size import VideoLimits

from .model import FACTOR, MAX_PIXELS, MERGE, MIN_PIXELS, PATCH, VIDEO_PIXELS


def smart_resize(height: int, width: int) -> tuple[int, int]:
    h, w = round(height / FACTOR) * FACTOR, round(width / FACTOR) * FACTOR
    if h * w > MAX_PIXELS:
        beta = math.sqrt(height * width / MAX_PIXELS)
        h = max(FACTOR, math.floor(height / beta / FACTOR) * FACTOR)
        w = max(FACTOR, math.floor(width / beta / FACTOR) * FACTOR)
    elif h * w < MIN_PIXELS:
        beta = math.sqrt(MIN_PIXELS / (height * width))
        h = math.ceil(height * beta / FACTOR) * FACTOR
        w = math.ceil(width * beta / FACTOR) * FACTOR
    return h, w


def frame_size(frames: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of each of so many frames of a video."""
    return VideoLimits(*VIDEO_PIXELS).size(frames, height, width, FACTOR, 1)


def resize(image, size=None) -> torch.Tensor:
    """uint8 [3, h, w] at `size` (height, width), or the model's size for a picture."""
    array = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].contiguous()
    size = size or smart_resize(array.shape[2], array.shape[3])
    if size != tuple(array.shape[2:]):
        array = F.interpolate(array, size=size, mode="bicubic", antialias=True)
    return array[0]


def patchify(image: torch.Tensor) -> torch.Tensor:
    """[3, h, w] uint8 -> [patches, 3 * 16 * 16] in the order of the merged 2x2 blocks.

    Qwen repeats a still picture to make the two frames its filters take; that is left to the filters here.
    """
    c, h, w = image.shape
    x = image.float().div(127.5).sub(1.0)
    x = x.view(c, h // FACTOR, MERGE, PATCH, w // FACTOR, MERGE, PATCH)
    x = x.permute(1, 4, 2, 5, 0, 3, 6)  # h/m, w/m, m, m, C, p, p
    return x.reshape(-1, c * PATCH * PATCH)


def frames(image: torch.Tensor) -> torch.Tensor:
    """[3, h, w] uint8 -> [patches, 3 * 2 * 16 * 16], as Qwen's own processor gives them."""
    x = patchify(image).view(-1, 3, 1, PATCH * PATCH)
    return x.expand(-1, -1, 2, -1).reshape(len(x), -1)


def grid(image: torch.Tensor) -> tuple[int, int, int]:
    return 1, image.shape[1] // PATCH, image.shape[2] // PATCH
