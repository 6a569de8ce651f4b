"""A tower that takes its items in portions gives what it gives for all of them at once, and pauses more often."""

from __future__ import annotations

import pytest
import torch

from sensorium.families.family import Encoder, EncoderInput
from sensorium.model.encoders import portions
from tests.checkpoints import GRID_FAMILIES, VISION_FAMILIES
from tests.families.conftest import Checkpoint
from tests.families.test_parity import items, load
from tests.families.test_video_parity import build


def run(encoder: Encoder, inputs: list[EncoderInput]) -> tuple[list[torch.Tensor], int]:
    """Return the features, and how often the tower paused."""
    *pauses, features = encoder.encode(inputs)
    assert pauses == [None] * len(pauses)
    assert features is not None
    return features, len(pauses)


def check(encoder: Encoder, inputs: list[EncoderInput], monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    whole, pauses = run(encoder, inputs)
    monkeypatch.setattr(portions, "MOST_ROWS", rows)
    parts, more = run(encoder, inputs)
    assert more > pauses
    for part, one, item in zip(parts, whole, inputs, strict=True):
        assert part.shape == one.shape == (item.layout.num_slots, encoder.out_features)
        assert (part - one).abs().max() < 1e-5


@pytest.mark.parametrize("rows", [1, 12])
@pytest.mark.parametrize("name", [name for name in VISION_FAMILIES if name != "qwen_vl"])
def test_pictures(name: str, rows: int, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(name)
    family, _, encoders = load(path)
    (encoder,) = encoders.values()
    check(encoder, items(path, family, 3), monkeypatch, rows)


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_a_video_between_pictures(
    name: str, rows: int, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(name)
    (encoder,) = load(path)[2].values()
    prompt, _ = build(path, [None, (9, 60, 90), (3, 56, 112), None])
    check(encoder, [item for item in prompt.inputs if item is not None], monkeypatch, rows)


@pytest.mark.parametrize(
    ("rows", "slices"),
    [
        ([], []),
        ([5], [slice(0, 1)]),
        ([9000], [slice(0, 1)]),
        ([4000, 96, 1], [slice(0, 2), slice(2, 3)]),
        ([1, 5000, 1], [slice(0, 1), slice(1, 2), slice(2, 3)]),
    ],
)
def test_portions_hold_what_fits(rows: list[int], slices: list[slice]) -> None:
    assert list(portions.portions(rows)) == slices
