"""Pictures for MiniCPM-V: an overview and, of big ones, a grid of slices, each resized to whole patches.

Equal bit for bit to the authors' `MiniCPMVImageProcessor`: Pillow resizes here as there, and normalising takes the
same steps in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import EncoderInput, Layout, Media
from sensorium.families.minicpm_slices import Size, Slices, choose_slices, fit, slice_size
from sensorium.families.minicpm_wording import IMAGE, IMAGE_SPELLING, Wording, numbering
from sensorium.families.pixels import read_statistic
from sensorium.model.config import check_numbers

Picture = npt.NDArray[np.uint8]
_UNLIMITED = 1 << 30
_MAX_PATCHES = 8192  # of an overview, which has about 1024: all see each other, so it is as much work as ten slices


@dataclass(frozen=True)
class MinicpmImageProcessor:
    """What preprocessor_config.json says; see `families.family.Processor`.

    Attributes:
        max_slices: as many as a picture is cut into where nobody asks for another number; the overview comes on top.
        fitting: no more slices than this, whoever asks.
        resolution: an overview or slice has about resolution x resolution pixels.
    """

    wording: Wording
    max_slices: int
    resolution: int
    patch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fitting: int = _UNLIMITED

    def __post_init__(self) -> None:
        check_numbers(self, "preprocessor_config.json")

    @classmethod
    def read(cls, checkpoint: Checkpoint, *, one_slice_tag: bool) -> MinicpmImageProcessor:
        """Read preprocessor_config.json; what it leaves out is the authors' class's default.

        Raises:
            ConfigurationError: it asks for something else than these models were trained with.
        """
        settings = checkpoint.image_settings
        if settings.get("slice_mode", True) is not True:
            raise ConfigurationError("preprocessor_config.json has slice_mode false, which is not supported.")
        return cls(
            wording=Wording.read(checkpoint, one_slice_tag=one_slice_tag),
            max_slices=int(settings.get("max_slice_nums", 9)),
            resolution=int(settings.get("scale_resolution", 448)),
            patch_size=int(settings.get("patch_size", 14)),
            mean=read_statistic(settings, "norm_mean", (0.5, 0.5, 0.5)),
            std=read_statistic(settings, "norm_std", (0.5, 0.5, 0.5)),
        )

    def slices(self, height: int, width: int, options: Mapping[str, Any]) -> Slices | None:
        """Return into how many (columns, rows) a picture of this size is cut; None: it is not.

        Raises:
            ValueError: the option is not a number of slices, or the picture is a thread; the text is for the user.
        """
        columns, rows = (side // self.patch_size for side in fit(width, height, self.resolution, self.patch_size))
        if columns * rows > _MAX_PATCHES:
            raise ValueError(
                f"The picture is {width}x{height} pixels; a picture of this shape takes {columns * rows} patches, and "
                f"this model looks at {_MAX_PATCHES} at most. Crop it."
            )
        return choose_slices((width, height), self._most(options), self.resolution)

    def layout(self, height: int, width: int, options: Mapping[str, Any]) -> Layout:
        """Return the tokens of a picture of this size, but for its number.

        Raises:
            ValueError: as for `slices`.
        """
        return self.wording.layout([self.slices(height, width, options)])

    def __call__(self, image: Picture, options: Mapping[str, Any], /) -> EncoderInput:
        """Turn (height, width, 3) RGB into the patches of its overview and slices; see `patches`."""
        slices = self.slices(image.shape[0], image.shape[1], options)
        pixels, sizes = self.patches(image, slices)
        tensors = {"pixel_values": pixels, "tgt_sizes": torch.tensor(sizes)}
        return EncoderInput(tensors, self.wording.layout([slices]), cost=len(pixels))

    def patches(self, image: Picture, slices: Slices | None) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        """Resize, cut and normalise a picture.

        Returns:
            (num_patches, 3 * patch_size^2) float32, the overview's patches and then each slice's, by rows; and
            (rows, columns) of the overview and of each slice, in patches.
        """
        height, width = image.shape[:2]
        picture = Image.fromarray(np.ascontiguousarray(image))
        parts = [self._cut(picture, fit(width, height, self.resolution, self.patch_size), (1, 1))]
        if slices is not None:
            parts.append(
                self._cut(picture, slice_size((width, height), slices, self.resolution, self.patch_size), slices)
            )
        sizes = [(part.shape[1], part.shape[2]) for part in parts for _ in range(len(part))]
        pixels = torch.cat([part.flatten(0, 2) for part in parts])  # (num_patches, 3, patch_size^2) uint8
        mean, std = (torch.tensor(values)[:, None] for values in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std).flatten(1), sizes

    def _cut(self, picture: Image.Image, size: Size, slices: Slices) -> torch.Tensor:
        """Return (num_slices, rows, columns, 3, patch_size^2) uint8 of slices of this size each."""
        (width, height), (columns, rows), patch = size, slices, self.patch_size
        resized = picture.resize((width * columns, height * rows), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized))
        pixels = pixels.view(rows, height // patch, patch, columns, width // patch, patch, 3)
        pixels = pixels.permute(0, 3, 1, 4, 6, 2, 5)  # (rows, columns, rows in patches, columns in patches, 3, p, p)
        return pixels.reshape(rows * columns, height // patch, width // patch, 3, patch * patch)

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: requests may only lower the number of slices."""
        return {"max_slice_nums": self._most(options)}

    def _most(self, options: Mapping[str, Any]) -> int:
        """Return the most slices a picture may be cut into.

        Raises:
            ValueError: the option is not a number of slices.
        """
        most = options.get("max_slice_nums", self.max_slices)
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"max_slice_nums is {most!r}; it must be a whole number of slices, at least 1.")
        return min(most, self.fitting)

    def within(self, max_tokens: int) -> MinicpmImageProcessor:
        """See `families.family.Processor`: an overview is always there, slices as they fit."""
        overview = self.wording.layout([None]).length
        # A column of slices has the most line ends; 16 tokens are for a picture's number and a tag around all slices.
        each = (self.wording.layout([(1, 3)]).length - overview) / 3
        fitting = max(int((max_tokens - overview - 16) / each), 1)
        return replace(self, fitting=min(self.fitting, fitting))

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal pictures would give other patches or other tokens."""
        own = [getattr(self, field.name) for field in fields(self) if field.name != "wording"]
        return json.dumps(["minicpm_image 1", self.wording.num_queries, self.wording.one_slice_tag, *own]).encode()


def image_media(*, one_slice_tag: bool) -> Media:
    """How a version takes pictures; `one_slice_tag` as in `Wording`."""
    return Media(
        processor=partial(MinicpmImageProcessor.read, one_slice_tag=one_slice_tag),
        placeholder=lambda checkpoint: checkpoint.token_id(IMAGE),
        marker=IMAGE,
        spellings=(IMAGE_SPELLING,),
        number=numbering,
    )
