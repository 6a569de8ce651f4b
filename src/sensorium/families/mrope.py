"""M-RoPE positions of a prompt: every token has a place in time, height and width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sensorium.families.decoder_config import vision_part
from sensorium.families.family import Config, MediaSpan


def mrope_positions(num_tokens: int, spans: Sequence[MediaSpan], config: Config) -> tuple[npt.NDArray[np.int64], int]:
    """Place a prompt of `num_tokens` with images and videos at `spans`, in order of offset.

    Text counts up on all three axes. The slots of an item count frames, rows and columns from where the text stopped,
    frames in steps of the layout's interval; the text behind them goes on behind the highest of these numbers. Where a
    layout has text between its slots, each run of slots holds an equal part of the frames.

    So the models were trained. transformers 5 has the text go on at the longer side of a frame instead, where it shares
    places with the later frames of a video that has more of them.

    Returns:
        (3, num_tokens) int64, and delta: token number i >= num_tokens has position i + delta on all axes.

    Source: Qwen2-VL, arXiv:2409.12191, section 2.1; transformers 4 `get_rope_index`.
    """
    merge = int(vision_part(config).get("spatial_merge_size", 2))
    positions = np.empty((3, num_tokens), np.int64)
    token = place = 0
    for span in spans:
        layout = span.layout
        runs = layout.runs or ((0, layout.num_slots),)
        frames, height, width = layout.grid[0] // len(runs), layout.grid[1] // merge, layout.grid[2] // merge
        box = np.indices((frames, height, width)).reshape(3, -1)
        # In float32 and cut, as the reference computes it: an interval is rarely a whole number.
        box[0] = (box[0].astype(np.float32) * np.float32(layout.interval)).astype(np.int64)
        for start, length in runs:
            at = span.offset + start
            positions[:, token:at] = np.arange(place, place + at - token)
            place += at - token
            token = at + length
            positions[:, at:token] = box + place
            place += int(box.max()) + 1
    positions[:, token:] = np.arange(place, place + num_tokens - token)
    delta = int(positions.max()) + 1 - num_tokens if num_tokens else 0
    return positions, delta
