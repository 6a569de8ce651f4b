"""The checkpoint's own processor, asked so that the client's text cannot become control tokens.

A processor writes as many placeholders as a media item needs into the prompt's text and tokenizes all of it. Stretches
of client text that would read as control tokens are therefore taken out first: one stand-in token, unknown to
everybody, holds the place of each, and what it stood for is put back in token ids.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from tokenizers import AddedToken

from sensorium.media.decoded import Video
from sensorium.media.sampling import Sampling
from sensorium.types import Modality

PARTS: dict[Modality, str] = {"image": "image_processor", "video": "video_processor", "audio": "feature_extractor"}
_RATE = 16_000
_FRAMES = 32  # of a video, where the checkpoint names no number: what LLaVA-OneVision was trained with
_PER_TOKEN = ("token_type_ids", "mm_token_type_ids", "cross_attention_mask")  # one entry a token in dimension 1
_UNUSED = ("attention_mask", "labels")


@dataclass(frozen=True)
class Processed:
    """Token ids with every placeholder, and the model's other inputs: tensors with a batch dimension of 1."""

    token_ids: list[int]
    inputs: dict[str, torch.Tensor]


class LibraryProcessor:
    """Wraps a processor of the transformers library, and changes its tokenizer. Thread-safe.

    Attributes:
        rate: samples per second of sounds; `max_seconds` of one where the processor says it would cut longer ones.
        sampling: the frames of a video where nobody says otherwise.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        hears = getattr(processor, "feature_extractor", None)
        self.rate = int(getattr(hears, "sampling_rate", None) or _RATE)
        seconds = getattr(processor, "max_audio_len", None) or getattr(hears, "chunk_length", None)
        self.max_seconds = float(seconds) if seconds else None
        self.sampling = _sampling(getattr(processor, "video_processor", None))
        self._turn = threading.Lock()  # tokenizers of the library are not safe to share
        self._stand_in = f"<|{secrets.token_hex(16)}|>"
        processor.tokenizer.add_tokens([AddedToken(self._stand_in, normalized=False, special=True)])
        self._stand_in_id: int = processor.tokenizer.convert_tokens_to_ids(self._stand_in)

    def __call__(
        self,
        text: str,
        foreign: Sequence[tuple[int, int, list[int]]],
        content: Sequence[tuple[str, Any]],
        *,
        add_special_tokens: bool,
    ) -> Processed:
        """Return the inputs for `text` with its media items.

        Args:
            text: the prompt, with one placeholder for each item.
            foreign: (start, end, ids): where text[start:end] is to be encoded as `ids`, in order.
            content: kind and what was decoded of each item: (height, width, 3) RGB, `Video`, (num_samples,) sound.

        Raises:
            Exception: whatever the processor raises for content or text it does not take.
        """
        with self._turn:
            features = self._processor(
                text=[self._without(text, foreign)],
                return_tensors="pt",
                add_special_tokens=add_special_tokens,
                **self._arguments(content),
            )
        ids: list[int] = features["input_ids"][0].tolist()
        runs = iter([run for *_, run in foreign])
        pieces = [next(runs) if token_id == self._stand_in_id else [token_id] for token_id in ids]
        if next(runs, None) is not None:
            raise ValueError("the processor left out a part of the prompt")
        counts = torch.tensor([len(piece) for piece in pieces])
        inputs = {}
        for name, value in features.items():
            if name == "input_ids" or name in _UNUSED or not isinstance(value, torch.Tensor):
                continue
            per_token = name in _PER_TOKEN and value.ndim > 1 and value.shape[1] == len(ids)
            inputs[name] = value.repeat_interleave(counts, 1) if foreign and per_token else value
        return Processed([token_id for piece in pieces for token_id in piece], inputs)

    def _arguments(self, content: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """What the processor takes for one text, by the names it has for it."""
        found: dict[str, Any] = {}
        if pictures := [Image.fromarray(pixels) for kind, pixels in content if kind == "image"]:
            found["images"] = [pictures]
        videos: list[Video] = [video for kind, video in content if kind == "video"]
        if videos:
            found |= {"videos": [video.frames for video in videos], "do_sample_frames": False}
            found["video_metadata"] = [[_metadata(video) for video in videos]]
        if sounds := [samples for kind, samples in content if kind == "audio"]:
            found |= {"audio": sounds, "sampling_rate": self.rate}
        return found

    def _without(self, text: str, foreign: Sequence[tuple[int, int, list[int]]]) -> str:
        pieces, last = [], 0
        for start, end, _ in foreign:
            pieces += [text[last:start], self._stand_in]
            last = end
        return "".join([*pieces, text[last:]])


def _metadata(video: Video) -> dict[str, Any]:
    """When the frames were, for processors that tell the model."""
    height, width = video.source_size
    return {
        "total_num_frames": video.num_source_frames,
        "fps": video.source_fps or 1.0,
        "duration": video.duration_s,
        "frames_indices": list(video.indices),
        "height": height,
        "width": width,
    }


def _sampling(video_processor: Any) -> Sampling:
    """The frames that the checkpoint asks for."""
    fps, count = (getattr(video_processor, name, None) for name in ("fps", "num_frames"))
    return Sampling(
        fps=float(fps) if fps else None,
        num_frames=None if fps else int(count or _FRAMES),
        min_frames=int(getattr(video_processor, "min_frames", None) or 1),
        max_frames=int(getattr(video_processor, "max_frames", None) or (count if fps and count else 768)),
        multiple=int(getattr(video_processor, "temporal_patch_size", None) or 1),
    )
