"""OpenAI's `usage`, and what became of each media item, behind it.

`audio_tokens` and `cached_tokens` are OpenAI's names, `multimodal_tokens` is vLLM's; `media` is ours. All but
`cached_tokens` are left out of answers to which they do not belong, so that an answer to text looks as it always did.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from sensorium.types import MediaUse, Modality

_STAMP_DIGITS = 3  # milliseconds; a video of 256 frames takes 2 kB


class MediaDetails(msgspec.Struct, omit_defaults=True):
    """One media item: `width` and `height` as it was sent (of each frame), `resized_*` as the model saw it.

    `where` is its place in the request, written like an error's `param`. `resized_*` are missing where the model saw
    parts of it; `tokens`, and what was taken of a clip, where the engine cannot tell.
    """

    type: Modality
    where: str
    tokens: int | UnsetType = UNSET
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    resized_width: int | UnsetType = UNSET
    resized_height: int | UnsetType = UNSET
    frames: int | UnsetType = UNSET
    timestamps: list[float] | UnsetType = UNSET  # seconds of the frames chosen
    seconds: float | UnsetType = UNSET


class PromptDetails(msgspec.Struct):
    """OpenAI's `prompt_tokens_details`."""

    cached_tokens: int = 0
    audio_tokens: int | UnsetType = UNSET
    multimodal_tokens: dict[str, int] | UnsetType = UNSET  # of all items of a kind
    media: list[MediaDetails] | UnsetType = UNSET


class Usage(msgspec.Struct):
    """OpenAI's `usage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


def prompt_details(num_cached: int, media: Sequence[MediaUse], itemised: bool) -> PromptDetails:
    """Return the details of prompts that hold `media`; where not `itemised`, sums only."""
    details = PromptDetails(num_cached)
    sums: dict[str, int] = {}
    for use in media:
        if use.num_tokens is not None:
            sums[use.kind] = sums.get(use.kind, 0) + use.num_tokens
    if sums:
        details.multimodal_tokens = sums
    if "audio" in sums:
        details.audio_tokens = sums["audio"]
    if media and itemised:
        details.media = [media_details(use) for use in media]
    return details


def media_details(use: MediaUse) -> MediaDetails:
    """Return what became of one item, in the wire's form."""
    details = MediaDetails(use.kind, use.where)
    if use.num_tokens is not None:
        details.tokens = use.num_tokens
    if use.size is not None:
        details.height, details.width = use.size
    if use.resized is not None:
        details.resized_height, details.resized_width = use.resized
    if use.kind == "video" and use.timestamps:
        details.frames = len(use.timestamps)
        details.timestamps = [round(seconds, _STAMP_DIGITS) for seconds in use.timestamps]
    if use.kind == "audio" and use.seconds:
        details.seconds = round(use.seconds, _STAMP_DIGITS)
    return details
