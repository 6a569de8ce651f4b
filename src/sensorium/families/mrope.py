"""M-RoPE positions of a prompt: every token has a place in time, height and width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sensorium.families.decoder_config import vision_part
from sensorium.families.family import Config, MediaSpan


def mrope_positions(num_tokens: int, spans: Sequence[MediaSpan], config: Config) -> tuple[npt.NDArray[np.int64], int]:
    """Place a prompt of `num_tokens` with images at `spans`, in order of offset.

    Text counts up on all three axes. An image's tokens count frames, rows and columns from where the text stopped;
    the text behind it goes on at the image's longer side.

    Returns:
        (3, num_tokens) int64, and delta: token number i >= num_tokens has position i + delta on all axes.

    Source: Qwen2-VL, arXiv:2409.12191, section 2.1; transformers `get_rope_index`.
    """
    merge = int(vision_part(config).get("spatial_merge_size", 2))
    positions = np.empty((3, num_tokens), np.int64)
    token = place = 0
    for span in spans:
        num_text = span.offset - token
        positions[:, token : span.offset] = np.arange(place, place + num_text)
        place += num_text
        grid = span.layout.grid
        frames, height, width = grid[0], grid[1] // merge, grid[2] // merge
        token = span.offset + span.length
        positions[:, span.offset : token] = np.indices((frames, height, width)).reshape(3, -1) + place
        place += max(height, width)
    positions[:, token:] = np.arange(place, place + num_tokens - token)
    delta = int(positions.max()) + 1 - num_tokens if num_tokens else 0
    return positions, delta
