"""M-RoPE positions against transformers' get_rope_index."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensorium.families import find
from sensorium.families.family import Layout, MediaSpan
from tests.checkpoints import GRID_FAMILIES
from tests.families.conftest import Checkpoint, read_config
from tests.families.reference import reference_model, token_types

IMAGE = -1
# Lengths of text and (rows, columns) in patches of images, in the order of the prompt.
PROMPTS: dict[str, list[int | tuple[int, int]]] = {
    "text": [9],
    "one image": [3, (4, 6), 5],
    "three images": [2, (4, 4), 7, (2, 10), 1, (8, 2), 4],
    "back to back": [1, (4, 4), 2, (6, 6), 2, (4, 8), 1],
    "image first": [(4, 6), 3],
    "image last": [3, (6, 4)],
    "only an image": [(2, 2)],
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_positions_equal_transformers(name: str, prompt: list[int | tuple[int, int]], checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    config = read_config(path)
    token_ids: list[int] = []
    spans = []
    for part in prompt:
        if isinstance(part, int):
            token_ids += [5] * part
        else:
            length = part[0] * part[1] // 4
            spans.append(MediaSpan(len(token_ids), b"", Layout((1, *part), length)))
            token_ids += [IMAGE] * length
    place = find(config).positions
    assert place is not None
    positions, delta = place(len(token_ids), spans, config)

    grids = torch.tensor([span.layout.grid for span in spans]) if spans else None
    wanted, wanted_delta = reference_model(path, name).model.get_rope_index(
        torch.tensor([token_ids]), token_types(token_ids, IMAGE), image_grid_thw=grids
    )
    assert positions.dtype == np.int64
    assert np.array_equal(positions, wanted[:, 0].numpy())
    assert delta == wanted_delta.item()


def test_frames_count_on_the_time_axis(checkpoint: Checkpoint) -> None:
    config = read_config(checkpoint("qwen2_vl"))
    place = find(config).positions
    assert place is not None
    positions, delta = place(11, [MediaSpan(2, b"", Layout((2, 4, 4), 8))], config)
    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4],
        [0, 1, 2, 2, 3, 3, 2, 2, 3, 3, 4],
        [0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4],
    ]
    assert delta == 5 - 11
