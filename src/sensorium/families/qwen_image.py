"""Pictures for the Qwen vision towers: resize to whole patches, normalise, cut.

Equal to the torchvision-backed `Qwen2VLImageProcessor` of transformers, as far as `families/pixels.py` says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import Config, EncoderInput, Layout, Media
from sensorium.families.pixels import CLIP_MEAN, CLIP_STD, normalise, read_mode, read_rescale, read_statistic, resize
from sensorium.model.config import check_numbers

_MAX_ASPECT_RATIO = 200


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the (height, width) nearest to the picture's whose sides are multiples of `factor`.

    Their product lies within min_pixels..max_pixels where that can be, and the aspect ratio stays about the same.

    Raises:
        ValueError: the aspect ratio is over 200.

    Source: transformers `models/qwen2_vl/image_processing_qwen2_vl.py`.
    """
    ratio = max(height, width) / min(height, width)
    if ratio > _MAX_ASPECT_RATIO:
        raise ValueError(
            f"The picture is {width}x{height} pixels, an aspect ratio of {ratio:.2f}; "
            f"this model takes at most {_MAX_ASPECT_RATIO}. Crop it."
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


@dataclass(frozen=True)
class QwenImageProcessor:
    """What preprocessor_config.json says; see `families.family.Processor`."""

    min_pixels: int
    max_pixels: int
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float
    mode: str

    def __post_init__(self) -> None:
        check_numbers(self, "preprocessor_config.json")

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> QwenImageProcessor:
        """Read preprocessor_config.json; what it leaves out comes from config.json or is the class's default.

        Raises:
            ConfigurationError: it asks for something else than the Qwen towers were trained with.
        """
        return cls.of(checkpoint.image_settings, checkpoint.config, (56 * 56, 28 * 28 * 1280))

    @classmethod
    def of(cls, preprocessor: Config, config: Config, default: tuple[int, int]) -> QwenImageProcessor:
        """Read the settings of a processor; `default` is the least and the most pixels where they say nothing.

        Raises:
            ConfigurationError: as for `read`.
        """
        vision = config.get("vision_config") or {}
        size = preprocessor.get("size") or {}
        for ours in ("patch_size", "temporal_patch_size", "merge_size"):
            theirs = "spatial_merge_size" if ours == "merge_size" else ours
            cut, seen = preprocessor.get(ours), vision.get(theirs)
            if None not in (cut, seen) and cut != seen:
                raise ConfigurationError(
                    f"preprocessor_config.json has {ours} {cut!r}, vision_config in config.json {theirs} {seen!r}; "
                    "they must be equal. The files do not belong together."
                )
        return cls(
            min_pixels=int(preprocessor.get("min_pixels") or size.get("shortest_edge") or default[0]),
            max_pixels=int(preprocessor.get("max_pixels") or size.get("longest_edge") or default[1]),
            patch_size=int(preprocessor.get("patch_size") or vision.get("patch_size") or 14),
            temporal_patch_size=int(preprocessor.get("temporal_patch_size", 2)),
            merge_size=int(preprocessor.get("merge_size", 2)),
            mean=read_statistic(preprocessor, "image_mean", CLIP_MEAN),
            std=read_statistic(preprocessor, "image_std", CLIP_STD),
            rescale=read_rescale(preprocessor),
            mode=read_mode(preprocessor),
        )

    def layout(self, height: int, width: int, options: Mapping[str, Any]) -> Layout:
        """Return the grid, (1, rows, columns) in patches, and the number of tokens for a picture of this size.

        Raises:
            ValueError: the aspect ratio or an option cannot be; the text is for the user.
        """
        low, high = self.bounds(options)
        new_height, new_width = smart_resize(height, width, self.patch_size * self.merge_size, low, high)
        rows, columns = new_height // self.patch_size, new_width // self.patch_size
        return Layout((1, rows, columns), rows * columns // self.merge_size**2, size=(new_height, new_width))

    def __call__(self, image: npt.NDArray[np.uint8], options: Mapping[str, Any], /) -> EncoderInput:
        """Turn (height, width, 3) RGB into (rows * columns, 3 * frames * patch_size^2) patches in merge order."""
        layout = self.layout(image.shape[0], image.shape[1], options)
        _, rows, columns = layout.grid
        merge, patch = self.merge_size, self.patch_size
        picture = torch.from_numpy(np.require(image, requirements=["C", "W"]))
        pixels = resize(picture, rows * patch, columns * patch, self.mode)
        # Order while still bytes: a quarter of the traffic. (rows / m, m, p, columns / m, m, p, c)
        pixels = pixels.view(rows // merge, merge, patch, columns // merge, merge, patch, 3)
        pixels = pixels.permute(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, 1, patch**2)
        values = normalise(pixels, self.mean, self.std, self.rescale)  # (num_patches, 3, 1, patch_size^2)
        # The tower sees pairs of frames: a picture is the same one twice.
        frames = values.expand(-1, -1, self.temporal_patch_size, -1).reshape(rows * columns, -1)
        return EncoderInput({"pixel_values": frames}, layout, cost=rows * columns)

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: requests may only lower the pixels."""
        most = options.get("max_pixels") or self.max_pixels
        return {"min_pixels": most, "max_pixels": most}

    def within(self, max_tokens: int) -> QwenImageProcessor:
        """See `families.family.Processor`: a token stands for merge_size x merge_size patches."""
        most = max_tokens * (self.patch_size * self.merge_size) ** 2
        return replace(self, max_pixels=min(self.max_pixels, most), min_pixels=min(self.min_pixels, most))

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal pictures would give other patches."""
        return json.dumps(["qwen_image 1", *vars(self).values()]).encode()

    def bounds(self, options: Mapping[str, Any]) -> tuple[int, int]:
        """Return (min_pixels, max_pixels) with a request's or the server's wishes applied."""
        size = options.get("size") or {}
        wishes = {
            "min_pixels": options.get("min_pixels", size.get("shortest_edge")),
            "max_pixels": options.get("max_pixels", size.get("longest_edge")),
        }
        for name, value in wishes.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}; it must be a whole number of pixels, at least 1.")
        low = wishes["min_pixels"] or self.min_pixels
        high = wishes["max_pixels"] or self.max_pixels
        if wishes["min_pixels"] is None:
            low = min(low, high)  # a low ceiling alone is meant to win over the checkpoint's floor
        if low > high:
            raise ValueError(f"min_pixels is {low}, more than max_pixels, {high}.")
        return low, high


IMAGE = Media(
    processor=QwenImageProcessor.read,
    placeholder=lambda checkpoint: checkpoint.config_id("image_token_id"),
    marker="<|vision_start|><|image_pad|><|vision_end|>",
)
