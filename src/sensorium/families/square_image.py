"""Pictures for Qwen-VL: every one becomes one square of one size, whatever its shape was.

Equal bit for bit to the authors' `visual.py`: Pillow resizes here as there, and normalising takes the same steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sensorium.families.family import EncoderInput, Layout
from sensorium.families.pixels import CLIP_MEAN, CLIP_STD


@dataclass(frozen=True)
class SquareImageProcessor:
    """Pictures of `side` x `side` pixels that become `num_tokens` each; see `families.family.Processor`."""

    side: int
    num_tokens: int
    cost: int

    def layout(self, height: int, width: int, options: Mapping[str, Any]) -> Layout:
        """Return the layout that all pictures have."""
        return Layout((0, 0, 0), self.num_tokens)

    def __call__(self, image: npt.NDArray[np.uint8], options: Mapping[str, Any], /) -> EncoderInput:
        """Turn (height, width, 3) RGB into `pixel_values`, (1, 3, side, side)."""
        picture = Image.fromarray(np.ascontiguousarray(image))
        resized = picture.resize((self.side, self.side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float()  # (1, 3, side, side)
        mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        pixels = pixels.div_(255).sub_(mean).div_(std).contiguous()
        return EncoderInput({"pixel_values": pixels}, self.layout(image.shape[0], image.shape[1], options), self.cost)

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: nothing can be chosen."""
        return {}

    def within(self, max_tokens: int) -> SquareImageProcessor:
        """See `families.family.Processor`: every picture takes the same, whatever `max_tokens`."""
        return self

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal pictures would give other pixels."""
        return json.dumps(["square_image 1", self.side, self.num_tokens]).encode()
