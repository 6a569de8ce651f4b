"""The vision towers against transformers', on the same tiny weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sensorium.errors import ConfigurationError
from sensorium.families import find
from sensorium.families.family import Encoder, EncoderInput, Family, Layout
from tests.checkpoints import GRID_FAMILIES, TILE_FAMILIES, VISION_FAMILIES
from tests.families.conftest import Checkpoint, image_processor, read_config
from tests.families.reference import reference_features

CPU = torch.device("cpu")
# (height, width): one token's worth, square, both orientations, window borders cut on both sides, extreme ratios.
SIZES = [(30, 20), (112, 112), (150, 90), (90, 150), (196, 140), (224, 308), (20, 1500), (1500, 20), (448, 448)]


def encoder_weights(path: Path, family: Family) -> dict[str, torch.Tensor]:
    named = ((family.rename(name), tensor) for name, tensor in load_file(path / "model.safetensors").items())
    return {where[1]: tensor for where, tensor in named if where is not None and where[0] == "vision"}


def build(path: Path, dtype: torch.dtype = torch.float32) -> tuple[Family, Encoder]:
    config = read_config(path)
    family = find(config)
    encoder = family.encoders["vision"](config, dtype, CPU)
    encoder.load({name: tensor.to(dtype) for name, tensor in encoder_weights(path, family).items()})
    return family, encoder


def pictures(path: Path, family: Family, sizes: list[tuple[int, int]]) -> list[EncoderInput]:
    processor = image_processor(path, family)
    rng = np.random.default_rng(7)
    return [processor(rng.integers(0, 256, (h, w, 3), dtype=np.uint8), {}) for h, w in sizes]


def run(encoder: Encoder, items: list[EncoderInput]) -> list[torch.Tensor]:
    *steps, result = encoder.encode(items)
    layers = len(vars(encoder)["_layers"])
    assert len(steps) >= layers  # a pause after each, for every portion
    assert len(steps) % layers == 0
    assert all(step is None for step in steps)
    assert result is not None
    return result


@pytest.mark.parametrize("layout", ["hub", "saved"])
@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_output_equals_transformers(name: str, layout: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name, layout)
    family, encoder = build(path)
    sizes = SIZES if layout == "hub" else SIZES[1:3]
    for item in pictures(path, family, sizes):
        (ours,) = run(encoder, [item])
        (theirs,) = reference_features(path, [item])
        assert ours.shape == (item.layout.num_slots, encoder.out_features)
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_a_batch_gives_what_each_image_gives_alone(name: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    family, encoder = build(path)
    items = pictures(path, family, [*SIZES, SIZES[2], SIZES[1]])
    together = run(encoder, items)
    for item, ours, theirs in zip(items, together, reference_features(path, items), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours, run(encoder, [item])[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", GRID_FAMILIES)
def test_several_frames_see_only_themselves(name: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    family, encoder = build(path)
    first, second = pictures(path, family, [(150, 90), (150, 90)])
    clip = EncoderInput(
        {"pixel_values": torch.cat([first.tensors["pixel_values"], second.tensors["pixel_values"]])},
        Layout((2, *first.layout.grid[1:]), 2 * first.layout.num_slots),
        cost=2 * first.cost,
    )
    (ours,) = run(encoder, [clip])
    torch.testing.assert_close(ours, torch.cat(run(encoder, [first, second])), atol=2e-5, rtol=0)
    torch.testing.assert_close(ours, reference_features(path, [clip])[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_bfloat16_stays_near_float32(name: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    family, exact = build(path)
    _, rounded = build(path, torch.bfloat16)
    items = pictures(path, family, [(150, 90), (224, 308)])
    for ours, wanted in zip(run(rounded, items), run(exact, items), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - wanted).norm() / wanted.norm() < 0.03


@pytest.mark.parametrize(
    ("name", "bias", "norm"),
    [(name, "blocks.1.attn.qkv.bias", "blocks.0.norm1.weight") for name in GRID_FAMILIES]
    + [(name, "layers.1.attn.k.bias", "layers.0.norm1.weight") for name in TILE_FAMILIES],
)
def test_wrong_tensors_are_named(name: str, bias: str, norm: str, checkpoint: Checkpoint) -> None:
    path = checkpoint(name)
    config = read_config(path)
    family = find(config)
    weights = encoder_weights(path, family)
    make = family.encoders["vision"]

    missing = {key: value for key, value in weights.items() if key != bias}
    with pytest.raises(ConfigurationError, match=f"no tensor '{bias}'"):
        make(config, torch.float32, CPU).load(missing)
    with pytest.raises(ConfigurationError, match=rf"'{norm}' .* shape \(7,\).* asks for \(32,\)"):
        make(config, torch.float32, CPU).load(weights | {norm: torch.ones(7)})
    with pytest.raises(ConfigurationError, match=r"does not use: stray\.weight"):
        make(config, torch.float32, CPU).load(weights | {"stray.weight": torch.ones(7)})
