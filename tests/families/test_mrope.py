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

IMAGE, VIDEO = -1, -2
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
    wanted, wanted_delta = reference_model(path).model.get_rope_index(
        torch.tensor([token_ids]), token_types(token_ids, IMAGE), image_grid_thw=grids
    )
    assert positions.dtype == np.int64
    assert np.array_equal(positions, wanted[:, 0].numpy())
    assert delta == wanted_delta.item()


# (frames, rows, columns) in patches, and seconds from pair to pair: whole, a fraction, and less than one position.
VIDEOS = [((3, 4, 6), 1.0), ((9, 4, 4), 0.75), ((40, 2, 2), 0.0834), ((7, 6, 2), 1.3)]


@pytest.mark.parametrize(("grid", "seconds"), VIDEOS)
@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_positions_of_videos_equal_transformers(
    name: str, grid: tuple[int, int, int], seconds: float, checkpoint: Checkpoint
) -> None:
    """A picture, a video and text around them; Qwen3-VL's video has text between its frames."""
    path = checkpoint(name)
    config = read_config(path)
    slots = grid[1] * grid[2] // 4
    if name == "qwen3_vl":
        video = Layout.of([5, 5, *[VIDEO] * slots, 5] * grid[0], VIDEO, grid)
    else:
        unit = config["vision_config"].get("tokens_per_second")
        interval = float(np.float32(unit) * np.float32(seconds)) if unit else 1.0
        video = Layout(grid, grid[0] * slots, interval=interval)
    token_ids = [5, 5, 5, *[IMAGE] * 6, 5, *(video.token_ids or [VIDEO] * video.num_slots), 5, 5]
    spans = [MediaSpan(3, b"", Layout((1, 4, 6), 6)), MediaSpan(10, b"", video)]
    place = find(config).positions
    assert place is not None
    positions, delta = place(len(token_ids), spans, config)

    timed = {"second_per_grid_ts": torch.tensor([seconds])} if name == "qwen2_5_vl" else {}
    ids = torch.tensor([token_ids])
    wanted, _ = reference_model(path).model.get_rope_index(
        ids,
        (ids == IMAGE).int() + 2 * (ids == VIDEO).int(),
        image_grid_thw=torch.tensor([[1, 4, 6]]),
        video_grid_thw=torch.tensor([grid]),
        **timed,
    )
    wanted, end = wanted[:, 0], len(token_ids) - 2
    wanted[:, end:] += wanted[:, :end].max() + 1 - wanted[0, end]  # behind the last frame: see mrope_positions
    assert np.array_equal(positions, wanted.numpy())
    assert delta == wanted.max() + 1 - len(token_ids)


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
