"""From what an item, the request and the model say to how a video is sampled.

One rule: what stands beside the item wins over the request's `mm_processor_kwargs`, these over the server's, and these
over the model's defaults; `fps` and `num_frames` exclude each other, so whichever is said nearer drops the other.
`max_frames` can only lower the model's and the server's ceilings, and a count over the model's ceiling, which is what
fits its context, gives as many frames as fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from sensorium.errors import MediaError
from sensorium.media.sampling import Sampling
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem

VIDEO_KWARGS = ("fps", "num_frames", "max_frames")  # of mm_processor_kwargs; those that speak about videos


def video_sampling(
    item: MediaItem, defaults: Sampling, limits: MediaLimits, *processor_kwargs: Mapping[str, Any]
) -> Sampling:
    """Return how `item` is to be sampled.

    Args:
        defaults: the family's, already lowered to what fits the context.
        processor_kwargs: the server's, then the request's, which were checked where they were read. Only
            VIDEO_KWARGS are looked at.

    Raises:
        MediaError: more frames are asked for than the server gives; `param` is the item's path.
    """
    sampling = defaults
    for said in (*processor_kwargs, msgspec.structs.asdict(item.options)):
        given = {name: value for name in VIDEO_KWARGS if (value := said.get(name)) is not None}
        if "fps" in given:
            sampling = replace(sampling, fps=float(given["fps"]), num_frames=None)
        if "num_frames" in given:
            sampling = replace(sampling, num_frames=given["num_frames"])
        if "max_frames" in given:
            sampling = replace(sampling, max_frames=min(given["max_frames"], defaults.max_frames))
    if sampling.num_frames is not None and sampling.num_frames > limits.max_video_frames:
        raise MediaError(
            f"{item.where}: {sampling.num_frames} frames are asked for; the limit is {limits.max_video_frames}. "
            "Ask for fewer, or raise --max-video-frames.",
            param=item.where,
            code="media_too_large",
        )
    ceiling = min(sampling.max_frames, limits.max_video_frames)
    return replace(sampling, max_frames=ceiling, start=item.options.start, end=item.options.end)
