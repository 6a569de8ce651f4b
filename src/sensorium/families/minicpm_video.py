"""Videos for MiniCPM-V 2.6 and 4.0: every frame is a picture without a number, and as a rule without slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import EncoderInput, Frames, Media
from sensorium.families.minicpm_image import MinicpmImageProcessor
from sensorium.families.minicpm_slices import Slices
from sensorium.families.minicpm_wording import IMAGE, VIDEO_SPELLING
from sensorium.media.sampling import Sampling

_MAX_SLICES = 2  # what the authors recommend at most: frames are many
_UNLIMITED = 1 << 30
_MAX_FRAMES = 64  # of the authors' script, which takes one a second


@dataclass(frozen=True)
class MinicpmVideoProcessor:
    """Frames as pictures, right behind each other; see `families.family.Processor`.

    Attributes:
        frame: prepares one frame.
        max_tokens: of longer videos frames are left out, evenly.
    """

    frame: MinicpmImageProcessor
    max_tokens: int = _UNLIMITED

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> MinicpmVideoProcessor:
        """Read preprocessor_config.json.

        Raises:
            ConfigurationError: as for pictures.
        """
        frame = MinicpmImageProcessor.read(checkpoint, one_slice_tag=False)
        return cls(replace(frame, max_slices=1, fitting=_MAX_SLICES))

    def __call__(self, video: Frames, options: Mapping[str, Any], /) -> EncoderInput:
        """Turn frames into patches; their times these models do not see.

        Raises:
            ValueError: there are no frames, or as for pictures; the text is for the user.
        """
        frames = video.pixels
        if not len(frames):
            raise ValueError("The video has no frames.")
        slices = self.frame.slices(frames.shape[1], frames.shape[2], options)
        indices = self._choose(len(frames), slices)
        chosen = frames[indices]
        prepared = [self.frame.patches(frame, slices) for frame in chosen]
        pixels = torch.cat([pixels for pixels, _ in prepared])  # (num_patches, 3 * patch_size^2)
        sizes = torch.tensor([size for _, sizes in prepared for size in sizes])  # (num_slices, 2)
        times = tuple(float(video.times[index]) for index in indices)
        layout = replace(self.frame.wording.layout([slices] * len(chosen)), times=times)
        return EncoderInput({"pixel_values": pixels, "tgt_sizes": sizes}, layout, cost=len(pixels))

    def _choose(self, num_frames: int, slices: Slices | None) -> npt.NDArray[np.int64]:
        """Return as many frame numbers as fit, evenly spread, first and last among them."""
        fitting = max(self.max_tokens // self.frame.wording.layout([slices]).length, 1)
        return np.linspace(0, num_frames - 1, min(num_frames, fitting)).round().astype(np.int64)

    @cached_property
    def sampling(self) -> Sampling:
        """See `families.family.VideoProcessor`: a frame a second, and as many as fit without slices."""
        most = max(min(_MAX_FRAMES, self.max_tokens // self.frame.wording.layout([None]).length), 1)
        return Sampling(fps=1.0, min_frames=1, max_frames=most, multiple=1, spread="middles")

    def frame_pixels(self, options: Mapping[str, Any]) -> int:
        """See `families.family.VideoProcessor`: four times the overview and slices a frame may become."""
        return 4 * self.frame.resolution**2 * (1 + self.frame.limits(options)["max_slice_nums"])

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`."""
        return self.frame.limits({"max_slice_nums": _MAX_SLICES, **options})

    def within(self, max_tokens: int) -> MinicpmVideoProcessor:
        """See `families.family.Processor`: fewer frames rather than smaller ones."""
        return replace(self, max_tokens=min(self.max_tokens, max_tokens))

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal videos would give other patches or other tokens."""
        return b"minicpm_video 1 %d " % self.max_tokens + self.frame.fingerprint()


VIDEO = Media(
    processor=MinicpmVideoProcessor.read,
    placeholder=lambda checkpoint: checkpoint.token_id(IMAGE),
    marker=IMAGE,
    spellings=(VIDEO_SPELLING,),
)
