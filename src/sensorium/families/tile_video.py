"""Videos for InternVL: every frame is one tile, behind its number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import EncoderInput, Frames, Layout, Media
from sensorium.families.tile_image import TileImageProcessor
from sensorium.media.sampling import Sampling

_MARKER = "Frame1: <IMG_CONTEXT>"  # what stands before the first frame is tokenized with the text before it
_UNLIMITED = 1 << 30


@dataclass(frozen=True)
class TileVideoProcessor:
    """Frames of one tile each; see `families.family.VideoProcessor`.

    Attributes:
        frame: makes the one tile of a frame.
        encode: text -> token ids.
    """

    frame: TileImageProcessor
    encode: Callable[[str], list[int]]
    max_tokens: int = _UNLIMITED

    @property
    def sampling(self) -> Sampling:
        """See `families.family.VideoProcessor`: the middles of eight equal parts, as in the authors' example."""
        beside = len(self.encode("\nFrame99: ")) + 2
        most = max(self.max_tokens // (self.frame.tokens_per_tile + beside), 1)
        return Sampling(fps=None, num_frames=8, min_frames=1, max_frames=min(768, most), multiple=1, spread="middles")

    def frame_pixels(self, options: Mapping[str, Any]) -> int:
        """See `families.family.VideoProcessor`: four tiles."""
        return 4 * self.frame.tile**2

    def __call__(self, video: Frames, options: Mapping[str, Any], /) -> EncoderInput:
        """Turn frames into `pixel_values`, (n, 3, tile, tile).

        Raises:
            ValueError: there are no frames; the text is for the user.
        """
        if not len(video.pixels):
            raise ValueError("The video has no frames.")
        pixels = torch.cat([self.frame(picture, {}).tensors["pixel_values"] for picture in video.pixels])
        start, slot, end = self.frame.token_ids
        ids: list[int] = []
        for number in range(1, len(pixels) + 1):
            before = self.encode(f"\nFrame{number}: ") if number > 1 else []
            ids += [*before, start, *[slot] * self.frame.tokens_per_tile, end]
        layout = replace(Layout.of(ids, slot), times=tuple(float(seconds) for seconds in video.times))
        return EncoderInput({"pixel_values": pixels}, layout, cost=len(pixels) * self.frame.cost_per_tile)

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: frames have one size."""
        return {}

    def within(self, max_tokens: int) -> TileVideoProcessor:
        """See `families.family.Processor`: fewer frames."""
        return replace(self, max_tokens=min(self.max_tokens, max_tokens))

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal videos would give other tiles or other tokens."""
        return b"tile_video 1 " + self.frame.fingerprint()


def tile_video(
    picture: Callable[[Checkpoint], TileImageProcessor],
    placeholder: Callable[[Checkpoint], int],
    spellings: tuple[str, ...] = (),
) -> Media:
    """How a version takes videos; the arguments are as for its pictures, whose placeholder it shares."""

    def read(checkpoint: Checkpoint) -> TileVideoProcessor:
        return TileVideoProcessor(replace(picture(checkpoint), min_tiles=1, max_tiles=1), checkpoint.encode)

    return Media(processor=read, placeholder=placeholder, marker=_MARKER, spellings=spellings)
