"""Pictures for CLIP towers: all become one square of one size, by cutting the middle out or by padding.

Equal to transformers' `CLIPImageProcessor` and `LlavaImageProcessor`, as far as `families/pixels.py` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sensorium.errors import ConfigurationError
from sensorium.families.family import Config, EncoderInput, Layout
from sensorium.families.pixels import (
    CLIP_MEAN,
    CLIP_STD,
    normalise,
    read_mode,
    read_rescale,
    read_statistic,
    resize,
    resize_by_pillow,
)
from sensorium.model.config import check_numbers

_MAX_ASPECT_RATIO = 200
_MAX_PADDED_SIDE = 4096  # a wider picture is shrunk before it is padded to a square: 8192 x 100 would become 200 MB


@dataclass(frozen=True)
class ClipImageProcessor:
    """What preprocessor_config.json says, for a tower of `side` x `side` pixels; see `families.family.Processor`."""

    side: int
    num_tokens: int
    cost: int
    pad: bool  # to a square, before resizing
    whole: bool  # resize to side x side whatever the aspect ratio
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float
    mode: str
    slot: int | None = None  # the token that stands in every slot; None: the placeholder
    by_pillow: bool = False  # resized as Pillow does, not as torch does

    def __post_init__(self) -> None:
        check_numbers(self, "preprocessor_config.json")

    @classmethod
    def read(
        cls,
        settings: Config,
        *,
        side: int,
        num_tokens: int,
        cost: int,
        pad: bool,
        slot: int | None = None,
        by_pillow: bool = False,
    ) -> ClipImageProcessor:
        """Read preprocessor_config.json; `pad` where it does not say whether to.

        Raises:
            ConfigurationError: the pictures it describes do not fit the tower.
        """
        size, crop = settings.get("size", side), settings.get("crop_size", side)
        # Old files have numbers: the shortest edge to resize to, and the side of the square to cut out.
        size = size if isinstance(size, Mapping) else {"shortest_edge": int(size)}
        crop = crop if isinstance(crop, Mapping) else {"height": int(crop), "width": int(crop)}
        pad = bool(settings.get("do_pad", pad))
        whole = "height" in size
        height, width = (size["height"], size["width"]) if whole else (size.get("shortest_edge"),) * 2
        cropped = settings.get("do_center_crop", True)
        fits = (height, width) == (side, side) and (not cropped or crop == {"height": side, "width": side})
        if not fits or not (cropped or whole or pad):
            raise ConfigurationError(
                f"preprocessor_config.json makes pictures with size {dict(size)} and crop_size {dict(crop)}; "
                f"the tower takes {side}x{side} pixels."
            )
        return cls(
            side=side,
            num_tokens=num_tokens,
            cost=cost,
            pad=pad,
            whole=whole,
            mean=read_statistic(settings, "image_mean", CLIP_MEAN),
            std=read_statistic(settings, "image_std", CLIP_STD),
            rescale=read_rescale(settings),
            mode=read_mode(settings),
            slot=slot,
            by_pillow=by_pillow,
        )

    def layout(self, height: int, width: int, options: Mapping[str, Any]) -> Layout:
        """Return the layout that all pictures have.

        Raises:
            ValueError: the aspect ratio is over 200, and all but a speck of the picture would be cut off.
        """
        ratio = max(height, width) / min(height, width)
        if ratio > _MAX_ASPECT_RATIO and not (self.pad or self.whole):
            raise ValueError(
                f"The picture is {width}x{height} pixels, an aspect ratio of {ratio:.2f}; "
                f"this model takes at most {_MAX_ASPECT_RATIO}. Crop it."
            )
        return Layout((0, 0, 0), self.num_tokens) if self.slot is None else self._own_slots

    def __call__(self, image: npt.NDArray[np.uint8], options: Mapping[str, Any], /) -> EncoderInput:
        """Turn (height, width, 3) RGB into `pixel_values`, (1, 3, side, side)."""
        layout = self.layout(image.shape[0], image.shape[1], options)
        picture = torch.from_numpy(np.require(image, requirements=["C", "W"]))
        square = self._square(self._padded(picture) if self.pad else picture)
        pixels = square.permute(2, 0, 1)[None].contiguous()
        return EncoderInput({"pixel_values": normalise(pixels, self.mean, self.std, self.rescale)}, layout, self.cost)

    @cached_property
    def _own_slots(self) -> Layout:
        assert self.slot is not None
        return Layout.of([self.slot] * self.num_tokens, self.slot)

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: nothing can be chosen."""
        return {}

    def within(self, max_tokens: int) -> ClipImageProcessor:
        """See `families.family.Processor`: every picture takes the same, whatever `max_tokens`."""
        return self

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal pictures would give other pixels."""
        return json.dumps(["clip_image 2", *(getattr(self, field.name) for field in fields(self))]).encode()

    def _square(self, image: torch.Tensor) -> torch.Tensor:
        """(height, width, 3) -> (side, side, 3)."""
        height, width = image.shape[:2]
        if self.whole:
            return self._resize(image, self.side, self.side)
        short = min(height, width)
        resized = self._resize(image, int(self.side * height / short), int(self.side * width / short))
        top, left = (resized.shape[0] - self.side) // 2, (resized.shape[1] - self.side) // 2
        return resized[top : top + self.side, left : left + self.side]

    def _resize(self, image: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return (resize_by_pillow if self.by_pillow else resize)(image, height, width, self.mode)

    def _padded(self, image: torch.Tensor) -> torch.Tensor:
        """(height, width, 3) -> (longer, longer, 3), the picture in the middle of the mean colour."""
        height, width = image.shape[:2]
        longer = max(height, width)
        if longer > _MAX_PADDED_SIDE:
            shrink = _MAX_PADDED_SIDE / longer
            image = self._resize(image, max(1, round(height * shrink)), max(1, round(width * shrink)))
            (height, width), longer = image.shape[:2], _MAX_PADDED_SIDE
        square = torch.tensor([int(mean * 255) for mean in self.mean], dtype=torch.uint8).repeat(longer, longer, 1)
        top, left = (longer - height) // 2, (longer - width) // 2
        square[top : top + height, left : left + width] = image
        return square
