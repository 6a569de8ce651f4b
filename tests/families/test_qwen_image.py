"""Sizes, patches and errors of the Qwen image processor against transformers'."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint as Files
from sensorium.families.family import ImageProcessor, Layout
from sensorium.families.qwen_image import QwenImageProcessor
from tests.checkpoints import GRID_FAMILIES
from tests.families.conftest import Checkpoint, image_processor

SIDES = [1, 2, 13, 14, 27, 28, 29, 41, 42, 43, 70, 100, 199, 224, 333, 448, 500, 777, 1080, 1920, 4000]
GREY = 1 / 255 / 0.26  # one grey level after normalising, at the smallest std


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth picture with noise on it."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(rough).resize((width, height)), np.int16)
    return np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


def read(preprocessor: dict[str, Any]) -> QwenImageProcessor:
    return QwenImageProcessor.read(Files({}, {"preprocessor_config.json": preprocessor}))


@pytest.fixture(params=GRID_FAMILIES)
def both(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> tuple[ImageProcessor, Qwen2VLImageProcessorPil]:
    path = checkpoint(request.param)
    return image_processor(path), Qwen2VLImageProcessorPil.from_pretrained(path)


def test_sizes_equal_transformers(both: tuple[ImageProcessor, Qwen2VLImageProcessorPil]) -> None:
    ours, theirs = both
    sizes = [(h, w) for h in SIDES for w in SIDES if max(h, w) <= 200 * min(h, w)]
    assert len(sizes) > 300
    for height, width in sizes:
        layout = ours.layout(height, width, {})
        frames, rows, columns = layout.grid
        assert frames == 1
        assert rows * columns == theirs.get_number_of_image_patches(height, width), (height, width)
        patch, size = theirs.patch_size, theirs.size
        bounds = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        assert (rows * patch, columns * patch) == smart_resize(height, width, 2 * patch, **bounds)
        assert layout.num_slots * 4 == rows * columns


@pytest.mark.parametrize("size", [(448, 448), (300, 400), (97, 33), (20, 2000), (501, 777), (60, 60)])
def test_pixels_equal_transformers_within_rounding(
    both: tuple[ImageProcessor, Qwen2VLImageProcessorPil], size: tuple[int, int]
) -> None:
    ours, theirs = both
    image = picture(*size)
    wanted = theirs(Image.fromarray(image), return_tensors="pt")
    found = ours(image, {})
    assert found.layout.grid == tuple(wanted["image_grid_thw"][0].tolist())
    assert found.tensors["pixel_values"].dtype == torch.float32
    assert found.tensors["pixel_values"].is_contiguous()
    difference = (found.tensors["pixel_values"] - wanted["pixel_values"]).abs()
    assert difference.max() < 2.1 * GREY
    assert (difference > 1e-5).float().mean() < 0.01


@pytest.mark.parametrize("size", [(448, 448), (56, 1120), (84, 140)])
def test_pixels_are_equal_where_nothing_is_resized(size: tuple[int, int]) -> None:
    image = picture(*size)
    wanted = Qwen2VLImageProcessorPil()(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    found = read({})(image, {}).tensors["pixel_values"]
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)


def test_resizing_is_what_torchvision_calls() -> None:
    """torchvision resizes channels-first uint8 with this very call; ours runs on channels-last memory."""
    image = picture(300, 417)
    first = torch.from_numpy(image).permute(2, 0, 1).contiguous()[None]
    resized = torch.nn.functional.interpolate(first, (308, 420), mode="bicubic", antialias=True)
    by_hand = resized[0].permute(1, 2, 0).contiguous().numpy()
    processor = read({})
    assert torch.equal(*(processor(each, {}).tensors["pixel_values"] for each in (image, by_hand)))


def test_options_bound_the_size() -> None:
    processor = read({"min_pixels": 3136, "max_pixels": 200704})
    assert processor.layout(2000, 2000, {}) == Layout((1, 32, 32), 256, size=(448, 448))
    assert processor.layout(2000, 2000, {"max_pixels": 112 * 112}) == Layout((1, 8, 8), 16, size=(112, 112))
    assert processor.layout(2000, 2000, {"size": {"longest_edge": 112 * 112}}) == Layout((1, 8, 8), 16, size=(112, 112))
    assert processor.layout(56, 56, {"min_pixels": 112 * 112}) == Layout((1, 8, 8), 16, size=(112, 112))
    below = processor.layout(2000, 2000, {"max_pixels": 784})  # the checkpoint's floor
    assert below == Layout((1, 2, 2), 1, size=(28, 28))
    assert processor(picture(200, 200), {"max_pixels": 112 * 112}).tensors["pixel_values"].shape == (64, 1176)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixels": 0}, "max_pixels is 0; it must be a whole number"),
        ({"min_pixels": "many"}, "min_pixels is 'many'; it must be a whole number"),
        ({"max_pixels": True}, "max_pixels is True"),
        ({"min_pixels": 9000, "max_pixels": 8000}, "min_pixels is 9000, more than max_pixels, 8000"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read({}).layout(100, 100, options)


def test_a_thread_of_pixels_is_refused() -> None:
    processor = read({})
    with pytest.raises(ValueError, match=r"20x4001 pixels, an aspect ratio of 200\.05; this model takes at most 200"):
        processor.layout(4001, 20, {})
    assert processor.layout(4000, 20, {}).num_slots > 0


def test_both_spellings_of_the_limits_are_read() -> None:
    old = read({"min_pixels": 3136, "max_pixels": 12845056})
    new = read({"size": {"shortest_edge": 3136, "longest_edge": 12845056}})
    assert old == new
    assert old.fingerprint() == new.fingerprint()
    assert old.fingerprint() != read({"min_pixels": 3136}).fingerprint()
    assert old.fingerprint() != read({"max_pixels": 12845056, "resample": 2}).fingerprint()


@pytest.mark.parametrize("wrong", [{"do_normalize": False}, {"resample": 1}])
def test_other_processing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        read(wrong)
