"""Videos for the Qwen vision towers: frames resized alike, in pairs that the tower sees as one.

Equal to transformers' `Qwen2VLVideoProcessor` and `Qwen3VLVideoProcessor` on the same frames, as far as
`families/pixels.py` says, until a video is too long for the context. Then frames become smaller, and, where a pair
would have fewer than 64 tokens, fewer: half of the detail of every frame is worth less to most questions than all of
the detail of half the frames, but under about 220 x 220 pixels there is little left to see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sensorium.families.checkpoint import Checkpoint
from sensorium.families.decoder_config import vision_part
from sensorium.families.family import Config, EncoderInput, Frames, Layout, Media
from sensorium.families.pixels import normalise, resize
from sensorium.families.qwen_image import QwenImageProcessor, smart_resize
from sensorium.families.qwen_video_size import FrameLimits, Size, VideoLimits
from sensorium.media.sampling import Sampling

_LEAST_TOKENS = 64  # of a pair of frames, before the context makes them fewer
_UNLIMITED = 1 << 30


@dataclass(frozen=True)
class Stamps:
    """Qwen3-VL: each pair of frames stands between markers of its own, behind its time."""

    encode: Callable[[str], list[int]]
    start_id: int
    slot_id: int
    end_id: int

    def tokens(self, times: Sequence[float], slots: int) -> list[int]:
        """Return the tokens of pairs at these seconds, `slots` each, without the first "<", which the marker has."""
        ids: list[int] = []
        for index, seconds in enumerate(times):
            stamp = f"{'<' if index else ''}{seconds:.1f} seconds>"
            ids += [*self.encode(stamp), self.start_id, *[self.slot_id] * slots, self.end_id]
        return ids

    def most(self) -> int:
        """Return how many tokens a pair may take beside its slots."""
        return len(self.encode("<3599.9 seconds>")) + 2


@dataclass(frozen=True)
class QwenVideoProcessor:
    """What the checkpoint's files say; see `families.family.VideoProcessor`.

    Attributes:
        frame: how a frame is cut and normalised; its bounds are the checkpoint's for videos.
        whole: the bounds are those of all frames together (Qwen3-VL), not of each.
        cap: tokens of the checkpoint's further cap, as in FrameLimits and VideoLimits.
        time_unit: positions a second takes on the time axis (Qwen2.5-VL); None: every pair takes one.
        stamps: how times are written; None: they are not.
    """

    frame: QwenImageProcessor
    whole: bool
    cap: int
    wish: Sampling
    time_unit: float | None = None
    stamps: Stamps | None = None
    max_tokens: int = _UNLIMITED

    @property
    def sampling(self) -> Sampling:
        """See `families.family.VideoProcessor`."""
        group = self.frame.temporal_patch_size
        fitting = max(self.max_tokens // (_LEAST_TOKENS + self._beside), 1) * group
        return replace(self.wish, max_frames=min(self.wish.max_frames, fitting))

    def frame_pixels(self, options: Mapping[str, Any]) -> int:
        """See `families.family.VideoProcessor`: four times what a frame of the shortest clips may become."""
        return 4 * min(self._frame_bound(options), max(self.max_tokens, 1) * self._factor**2)

    def layout(self, num_frames: int, height: int, width: int, options: Mapping[str, Any]) -> Layout:
        """Return the grid, (pairs, rows, columns) in patches, and the number of slots; not yet any times.

        Raises:
            ValueError: there are no frames, or the aspect ratio or an option cannot be; the text is for the user.
        """
        if num_frames < 1:
            raise ValueError("The video has no frames.")
        pairs = -(-num_frames // self.frame.temporal_patch_size)
        new_height, new_width = self._size(num_frames, height, width, options)
        fitting = max(self.max_tokens // pairs - self._beside, 1) * self._factor**2
        if self.whole:
            fitting = min(fitting, self._frame_bound(options))
        if new_height * new_width > fitting:
            new_height, new_width = smart_resize(height, width, self._factor, 1, fitting)
        rows, columns = new_height // self.frame.patch_size, new_width // self.frame.patch_size
        slots = pairs * rows * columns // self.frame.merge_size**2
        return Layout((pairs, rows, columns), slots, size=(new_height, new_width))

    def __call__(self, video: Frames, options: Mapping[str, Any], /) -> EncoderInput:
        """Turn frames into (pairs * rows * columns, 3 * 2 * patch_size^2) patches, pair by pair in merge order."""
        num_frames, height, width = video.pixels.shape[:3]
        layout = self.layout(num_frames, height, width, options)
        pairs, rows, columns = layout.grid
        group, merge, patch = self.frame.temporal_patch_size, self.frame.merge_size, self.frame.patch_size
        size = (rows * patch, columns * patch)
        frames = [self._resized(picture, size) for picture in video.pixels]
        times = [float(seconds) for seconds in video.times]
        missing = pairs * group - len(frames)
        pixels = torch.stack(frames + frames[-1:] * missing)
        pixels = pixels.view(pairs, group, rows // merge, merge, patch, columns // merge, merge, patch, 3)
        pixels = pixels.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(pairs * rows * columns, 3, -1)
        values = normalise(pixels, self.frame.mean, self.frame.std, self.frame.rescale).flatten(1)
        timed = self._timed(layout, times + times[-1:] * missing, video.fps)
        return EncoderInput({"pixel_values": values}, replace(timed, times=tuple(times)), cost=pairs * rows * columns)

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: requests may only lower the pixels of a frame."""
        return {"max_pixels": options.get("max_pixels") or self.frame.max_pixels}

    def within(self, max_tokens: int) -> QwenVideoProcessor:
        """See `families.family.Processor`, and above: smaller frames first."""
        return replace(self, max_tokens=min(self.max_tokens, max_tokens))

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal videos would give other patches, tokens or positions."""
        own = [self.whole, self.cap, self.time_unit, self.stamps is not None, self.max_tokens]
        return json.dumps(["qwen_video 1", *own]).encode() + self.frame.fingerprint()

    @property
    def _factor(self) -> int:
        return self.frame.patch_size * self.frame.merge_size

    @property
    def _beside(self) -> int:
        """Tokens of a pair that are not slots."""
        return self.stamps.most() if self.stamps else 0

    def _frame_bound(self, options: Mapping[str, Any]) -> int:
        """Return the most pixels of one frame that the request or the server leave."""
        return self.frame.bounds({"max_pixels": options.get("max_pixels")})[1]

    def _size(self, num_frames: int, height: int, width: int, options: Mapping[str, Any]) -> Size:
        """The size that transformers gives the frames."""
        group = self.frame.temporal_patch_size
        if self.whole:
            limits = VideoLimits(self.frame.min_pixels, self.frame.max_pixels, self.cap)
            return limits.size(num_frames, height, width, self._factor, group)
        return FrameLimits(*self.frame.bounds(options), self.cap).size(num_frames, height, width, self._factor, group)

    def _resized(self, picture: npt.NDArray[np.uint8], size: Size) -> torch.Tensor:
        tensor = torch.from_numpy(np.require(picture, requirements=["C", "W"]))
        return resize(tensor, *size, self.frame.mode)

    def _timed(self, layout: Layout, times: Sequence[float], fps: float) -> Layout:
        """Say in the layout when the pairs were, in whichever way the model is told."""
        pairs, group = layout.grid[0], self.frame.temporal_patch_size
        if self.stamps is not None:
            middles = [(times[i] + times[i + group - 1]) / 2 for i in range(0, len(times), group)]
            tokens = self.stamps.tokens(middles, layout.num_slots // pairs)
            return replace(Layout.of(tokens, self.stamps.slot_id, layout.grid), size=layout.size)
        if self.time_unit is None or not fps:
            return layout
        return replace(layout, interval=float(np.float32(self.time_unit) * np.float32(group / fps)))


def _read(checkpoint: Checkpoint, *, factor: int, default: tuple[int, int], **more: Any) -> QwenVideoProcessor:
    settings = _settings(checkpoint)
    whole = bool(more.get("stamps"))
    tokens = int(settings.get("max_video_tokens", 768 if whole else 128_000))
    wish = Sampling(
        fps=float(settings.get("fps") or 2.0),
        min_frames=int(settings.get("min_frames") or 4),
        max_frames=int(settings.get("max_frames") or 768),
        multiple=1 if whole else 2,
    )
    low, high = (tokens_of * factor**2 for tokens_of in default)
    frame = QwenImageProcessor.of(settings, checkpoint.config, (low, high))
    return QwenVideoProcessor(frame, whole, tokens if settings.get("cap_pixels_per_frame") else 0, wish, **more)


def _settings(checkpoint: Checkpoint) -> Config:
    """Where transformers looks for a video processor's settings; old checkpoints have none but the picture's."""
    nested = checkpoint.files.get("processor_config.json", {}).get("video_processor")
    if isinstance(nested, Mapping):
        return nested
    return checkpoint.files.get("video_preprocessor_config.json") or checkpoint.image_settings


def _read_plain(checkpoint: Checkpoint) -> QwenVideoProcessor:
    return _read(checkpoint, factor=28, default=(128, 768))


def _read_timed(checkpoint: Checkpoint) -> QwenVideoProcessor:
    unit = float(vision_part(checkpoint.config).get("tokens_per_second", 4))
    return _read(checkpoint, factor=28, default=(128, 768), time_unit=unit)


def _read_stamped(checkpoint: Checkpoint) -> QwenVideoProcessor:
    ids = (checkpoint.config_id(f"{name}_token_id") for name in ("vision_start", "video", "vision_end"))
    return _read(checkpoint, factor=32, default=(128, 768), stamps=Stamps(checkpoint.encode, *ids))


_MARKER = "<|vision_start|><|video_pad|><|vision_end|>"
_media = partial(Media, placeholder=lambda checkpoint: checkpoint.config_id("video_token_id"))
VIDEO = _media(processor=_read_plain, marker=_MARKER)
TIMED_VIDEO = _media(processor=_read_timed, marker=_MARKER)
# The first "<" stands before the placeholder: so it becomes one token with what is before it, where it would have.
STAMPED_VIDEO = _media(processor=_read_stamped, marker="<<|video_pad|>", spellings=(_MARKER,))
