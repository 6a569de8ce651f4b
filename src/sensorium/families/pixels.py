"""What the image processors share: resizing as torchvision does, normalising, and settings read strictly.

Equal to transformers' torchvision-backed processors, which resize uint8 with torch's own antialiased kernels, as
here; only normalising is one multiply-add instead of a subtraction and a division, so values agree to 2e-6. The
Pillow-backed ones resize with Pillow, which rounds elsewhere: mostly under 1 % of the values differ, for some pairs of
sizes a quarter, by one grey level, rarely two (0.015 / 0.03 after normalising). For families whose authors resize with
Pillow there is `resize_by_pillow`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sensorium.errors import ConfigurationError
from sensorium.families.family import Config
from sensorium.families.reading import number

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers for `resample`


def read_mode(settings: Config) -> str:
    """Return torch's name for the kernel preprocessor_config.json asks for; bicubic where it is silent.

    Raises:
        ConfigurationError: it is not supported, or a step that every processor here takes is switched off.
    """
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if settings.get(key, True) is not True:
            raise ConfigurationError(f"preprocessor_config.json has {key} false, which is not supported.")
    resample = settings.get("resample", 3)
    if not isinstance(resample, int) or resample not in _MODES:
        raise ConfigurationError(f"preprocessor_config.json has resample {resample}; supported: 0, 2, 3.")
    return _MODES[resample]


def read_statistic(settings: Config, key: str, default: Sequence[float]) -> tuple[float, ...]:
    """Return the mean or the standard deviation of each channel; a file may give one for all.

    Raises:
        ConfigurationError: it is neither one number nor three, or a deviation is not above 0.
    """
    value = settings.get(key) or default
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    if len(values) != 3 or not all(isinstance(each, int | float) for each in values):
        raise ConfigurationError(f"preprocessor_config.json has {key} {value!r}; it must be three numbers.")
    if key.endswith("std") and min(values) <= 0:
        raise ConfigurationError(f"preprocessor_config.json has {key} {value!r}; each must be above 0.")
    return values


def read_rescale(settings: Config) -> float:
    """Return what bytes are multiplied with.

    Raises:
        ConfigurationError: it is no number above 0.
    """
    return number(settings, "rescale_factor", 1 / 255, "preprocessor_config.json")


def resize(image: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """(old height, old width, 3) uint8 -> (height, width, 3) uint8, contiguous."""
    if tuple(image.shape[:2]) == (height, width):
        return image
    batch = image.permute(2, 0, 1)[None]  # channels last in memory: the layout torch's uint8 kernel is made for
    if mode == "nearest-exact":
        resized = F.interpolate(batch, (height, width), mode=mode)
    else:
        resized = F.interpolate(batch, (height, width), mode=mode, antialias=True)
    return resized[0].permute(1, 2, 0).contiguous()


def resize_by_pillow(image: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """(old height, old width, 3) uint8 -> (height, width, 3) uint8, with the very values Pillow gives."""
    kernel = Image.Resampling["NEAREST" if mode == "nearest-exact" else mode.upper()]
    resized = Image.fromarray(image.contiguous().numpy()).resize((width, height), kernel)
    return torch.from_numpy(np.array(resized))


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float], rescale: float) -> torch.Tensor:
    """(num_images, 3, ...) uint8 -> the same in float32: (pixels * rescale - mean) / std, channel by channel."""
    shape = (len(mean), *[1] * (pixels.dim() - 2))
    scale = torch.tensor([rescale / s for s in std]).view(shape)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(shape)
    return torch.addcmul(shift, pixels.float(), scale)
