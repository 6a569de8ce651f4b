"""Sizes, patches, times and limits of the Qwen video processors against transformers'."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sensorium.families import find
from sensorium.families.checkpoint import Checkpoint as Files
from sensorium.families.family import Frames
from sensorium.families.qwen_video import QwenVideoProcessor, Stamps, _read_plain
from tests.checkpoints import GRID_FAMILIES
from tests.families.conftest import Checkpoint, read_checkpoint
from tests.families.test_encoders import run
from tests.families.test_parity import load
from tests.families.test_qwen_image import GREY, picture
from tests.families.video_reference import reference_pixels, reference_size

COUNTS = [1, 2, 3, 4, 7, 16, 33]
SIZES = [(28, 28), (48, 64), (120, 90), (240, 320), (333, 777), (40, 900), (720, 1280)]
SETTINGS = {"size": {"shortest_edge": 4096, "longest_edge": 1 << 20}, "patch_size": 14}


def clip(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Frames of one scene, each a little different."""
    return np.stack([picture(height, width, seed) for seed in range(count)])


def video_processor(name: str, checkpoint: Checkpoint) -> QwenVideoProcessor:
    files = read_checkpoint(checkpoint(name))
    return cast(QwenVideoProcessor, find(files.config).media["video"].processor(files))


@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_token_counts_equal_transformers(name: str, checkpoint: Checkpoint) -> None:
    ours = video_processor(name, checkpoint)
    low, high, patch = ours.frame.min_pixels, ours.frame.max_pixels, ours.frame.patch_size
    checked = 0
    for count in COUNTS:
        for height, width in SIZES:
            layout = ours.layout(count, height, width, {})
            wanted = reference_size(name, count, height, width, low, high)
            assert layout.grid == ((count + 1) // 2, wanted[0] // patch, wanted[1] // patch), (count, height, width)
            assert layout.num_slots * 4 == np.prod(layout.grid)
            checked += 1
    assert checked >= 30


@pytest.mark.parametrize("size", [(48, 64), (120, 90), (333, 417)])
@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_pixels_equal_transformers_within_rounding(
    name: str, count: int, size: tuple[int, int], checkpoint: Checkpoint
) -> None:
    ours = video_processor(name, checkpoint)
    frames = clip(count, *size)
    found = ours(Frames(frames, [0.5 * i for i in range(count)], 2.0), {})
    _, rows, columns = found.layout.grid
    patch = ours.frame.patch_size
    wanted = reference_pixels(ours, frames, (rows * patch, columns * patch))
    values = found.tensors["pixel_values"]
    assert values.is_contiguous()
    assert found.cost == len(values) == np.prod(found.layout.grid)
    assert values.shape == wanted.shape
    difference = (values - wanted).abs()
    assert difference.max() < 1.1 * GREY
    assert (difference > 1e-5).float().mean() < 0.001
    assert found.layout.times == tuple(0.5 * i for i in range(count))


def read(**settings: Any) -> QwenVideoProcessor:
    return _read_plain(Files({}, {"preprocessor_config.json": {}, "video_preprocessor_config.json": settings}))


def test_frames_become_smaller_and_then_fewer_to_fit() -> None:
    processor = read(min_pixels=3136, max_pixels=12845056)
    free = processor.layout(20, 1080, 1920, {})
    fitted = processor.within(1536)
    layout = fitted.layout(20, 1080, 1920, {})
    assert free.num_slots > 10_000
    assert 1300 < layout.num_slots <= 1536
    assert fitted.sampling.max_frames == 48  # 24 pairs of 64 tokens
    assert 1000 < fitted.layout(48, 1080, 1920, {}).num_slots <= 1536
    assert processor.sampling.max_frames == 768
    assert processor.within(10).sampling.max_frames == 2
    assert processor.fingerprint() != fitted.fingerprint()
    assert fitted.frame_pixels({}) == 4 * 1536 * 28 * 28
    # What fits anyway is as it would be.
    assert processor.layout(4, 200, 200, {}) == fitted.layout(4, 200, 200, {})


def test_a_request_bounds_a_frame(checkpoint: Checkpoint) -> None:
    for name in GRID_FAMILIES:
        ours = video_processor(name, checkpoint)
        factor = 2 * ours.frame.patch_size
        layout = ours.layout(4, 400, 400, {"max_pixels": 4 * factor**2})
        assert layout.grid == (2, 4, 4)
        assert ours.limits({"max_pixels": 500}) == {"max_pixels": 500}


def test_the_cap_of_the_checkpoint_bounds_all_frames() -> None:
    capped = read(min_pixels=784, max_pixels=784 * 768, cap_pixels_per_frame=True, max_video_tokens=1000)
    # 900 tokens for 10 frames in pairs: 180 a pair
    assert capped.layout(10, 1000, 1000, {}).grid == (5, 26, 26)
    assert read(min_pixels=784, max_pixels=784 * 768, max_video_tokens=1000).layout(10, 1000, 1000, {}).grid[1] == 54


def test_settings_come_from_where_transformers_looks() -> None:
    assert read(**SETTINGS).frame.max_pixels == 1 << 20
    assert read(fps=1, min_frames=2, max_frames=10).sampling.max_frames == 10
    picture_only = _read_plain(Files({}, {"preprocessor_config.json": SETTINGS}))
    assert picture_only.frame.max_pixels == 1 << 20
    nested = {"processor_config.json": {"video_processor": SETTINGS, "image_processor": {}}}
    assert _read_plain(Files({}, nested)).frame.max_pixels == 1 << 20
    assert read().frame.min_pixels == 128 * 28 * 28


def test_a_pairs_time_is_between_its_frames() -> None:
    texts: list[str] = []

    def encode(text: str) -> list[int]:
        texts.append(text)
        return [7]

    stamps = Stamps(encode, 1, 2, 3)
    assert stamps.tokens([0.25, 61.26], 2) == [7, 1, 2, 2, 3, 7, 1, 2, 2, 3]
    assert texts == ["0.2 seconds>", "<61.3 seconds>"]


def test_no_frames_and_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="no frames"):
        read().layout(0, 20, 20, {})
    with pytest.raises(ValueError, match="aspect ratio"):
        read().layout(2, 20, 4100, {})


def test_a_tower_sees_every_pair_alone(checkpoint: Checkpoint) -> None:
    """A video's rows are those of its pairs as videos of their own: nothing looks from one pair to another."""
    for name in GRID_FAMILIES:
        files = read_checkpoint(checkpoint(name))
        ours = video_processor(name, checkpoint)
        _, _, encoders = load(checkpoint(name))
        frames = clip(6, 120, 160)
        if name == "qwen3_vl":  # its size depends on the number of frames
            ours = QwenVideoProcessor(ours.frame, False, 0, ours.wish, stamps=ours.stamps)
        whole = ours(Frames(frames, range(6), 1.0), {})
        pairs = [ours(Frames(frames[i : i + 2], range(2), 1.0), {}) for i in (0, 2, 4)]
        rows = run(encoders["vision"], [whole])[0]
        alone = torch.cat([run(encoders["vision"], [pair])[0] for pair in pairs])
        torch.testing.assert_close(rows, alone, atol=2e-5, rtol=0)
        assert files.config["vision_config"]
