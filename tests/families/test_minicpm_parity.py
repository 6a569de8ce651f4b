"""MiniCPM-V against its authors' composition of the model: tower, logits of every position, greedy tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from sensorium.engine.engine import Engine, EngineLimits
from sensorium.engine.sequence import Prompt, Sequence
from sensorium.errors import ConfigurationError
from sensorium.families.family import EncoderInput, Frames, MediaSpan
from sensorium.model.encoders.navit import Navit, buckets
from sensorium.types import SamplingParams
from tests.families.conftest import image_processor, read_checkpoint, read_config
from tests.families.minicpm_reference import reference
from tests.families.parity import Claim, Parity
from tests.families.test_encoders import encoder_weights, run
from tests.families.test_minicpm_image import picture
from tests.families.test_parity import CPU, load, our_logits
from tests.minicpm_checkpoints import VERSIONS, make_minicpm

# (height, width): one slice of each shape; grids in both directions; threads; slices and overview of unequal length.
SIZES = [(448, 448), (30, 20), (300, 500), (900, 700), (500, 1400), (40, 1500), (1500, 40), (635, 634)]
NUM_OUTPUT = 6
AUTHORS = "the authors' composition (`minicpm_reference.py`) and processor (`minicpm_golden.json`)"


@pytest.fixture(scope="session")
def minicpm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def build(version: str) -> Path:
        path = tmp_path_factory.mktemp(f"minicpm-{version}")
        make_minicpm(version, path)
        return path

    return build


def pictures(path: Path, sizes: list[tuple[int, int]], most: int = 9) -> list[EncoderInput]:
    processor = image_processor(path)
    return [processor(picture(h, w, seed), {"max_slice_nums": most}) for seed, (h, w) in enumerate(sizes)]


def prompt_with(path: Path, items: list[EncoderInput]) -> Prompt:
    """Text, then each numbered picture and more text."""
    family, *_ = load(path)
    media = family.media["image"]
    assert media.number is not None
    number = media.number(read_checkpoint(path))
    rng = np.random.default_rng(5)
    token_ids, spans = rng.integers(0, 560, 7).tolist(), []
    for index, item in enumerate(items):
        layout = number(item.layout, index)
        spans.append(MediaSpan(len(token_ids), f"{index}".encode(), layout))
        token_ids += [*layout.token_ids, *rng.integers(0, 560, index + 2).tolist()]
    return Prompt(token_ids, tuple(spans), tuple(items))


@pytest.mark.parametrize("version", VERSIONS)
def test_features_equal_the_authors(version: str, minicpm: Callable[[str], Path]) -> None:
    path = minicpm(version)
    _, _, encoders = load(path)
    items = pictures(path, SIZES, most=4)
    together = run(encoders["vision"], items)
    padded = reference(path).of_items(items)
    for item, ours, theirs in zip(items, together, padded, strict=True):
        assert ours.shape == (item.layout.num_slots, encoders["vision"].out_features)
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours, run(encoders["vision"], [item])[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("num_images", [0, 1, 3])
@pytest.mark.parametrize("version", VERSIONS)
def test_logits_equal_the_authors(
    version: str, num_images: int, minicpm: Callable[[str], Path], parity: Parity
) -> None:
    path = minicpm(version)
    _, decoder, encoders = load(path)
    items = pictures(path, [(300, 500), (700, 640), (90, 60)][:num_images], most=2)
    prompt = prompt_with(path, items)
    wanted = reference(path).logits(prompt.token_ids, prompt.spans, items)
    assert wanted.std() > 0.5
    claim: Claim = "text" if not num_images else "image" if num_images == 1 else "several"
    name = f"minicpm_v_{version.replace('.', '_')}"
    parity.close(name, claim, our_logits(decoder, encoders, prompt), wanted, reference=AUTHORS)
    parity.holds(name, "layout")


@pytest.mark.parametrize("version", ["2.6", "4.0"])
def test_logits_of_a_video_equal_the_authors(version: str, minicpm: Callable[[str], Path], parity: Parity) -> None:
    """Its frames are pictures right behind each other, as in the authors' script."""
    path = minicpm(version)
    family, decoder, encoders = load(path)
    frames = np.stack([picture(60, 90, seed) for seed in range(3)])
    item = family.media["video"].processor(read_checkpoint(path))(Frames(frames, (0.0, 1.0, 2.0)), {})
    token_ids = [5, 6, *item.layout.token_ids, 7, 8, 9]
    prompt = Prompt(token_ids, (MediaSpan(2, b"video", item.layout),), (item,))
    wanted = reference(path).logits(token_ids, prompt.spans, [item])
    name = f"minicpm_v_{version.replace('.', '_')}"
    parity.close(name, "video", our_logits(decoder, encoders, prompt), wanted, reference=AUTHORS)


@pytest.mark.parametrize("version", VERSIONS)
def test_greedy_tokens_equal_the_authors(version: str, minicpm: Callable[[str], Path]) -> None:
    path = minicpm(version)
    _, decoder, encoders = load(path)
    items = pictures(path, [(700, 640), (200, 300)], most=2)
    prompt = prompt_with(path, items)
    engine = Engine(decoder, encoders, EngineLimits(num_blocks=32, block_size=8, max_num_batched_tokens=20))
    sequence = Sequence(("a", 0), prompt, SamplingParams(temperature=0.0), NUM_OUTPUT, frozenset(), seed=0)
    assert engine.add(sequence)
    while len(sequence.token_ids) < len(prompt.token_ids) + NUM_OUTPUT:
        engine.step()
    engine.remove(sequence)
    wanted = list(prompt.token_ids)
    for _ in range(NUM_OUTPUT):
        wanted.append(int(reference(path).logits(wanted, prompt.spans, items)[-1].argmax()))
    assert sequence.token_ids == wanted


def test_bfloat16_stays_near_float32(minicpm: Callable[[str], Path]) -> None:
    path = minicpm("2.6")
    family, _, encoders = load(path)
    rounded = family.encoders["vision"](read_config(path), torch.bfloat16, CPU)
    rounded.load({name: tensor.bfloat16() for name, tensor in encoder_weights(path, family).items()})
    items = pictures(path, [(300, 500), (700, 640)], most=2)
    for ours, wanted in zip(run(rounded, items), run(encoders["vision"], items), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - wanted).norm() / wanted.norm() < 0.03


def test_places_spread_over_the_whole_axis() -> None:
    for count in range(1, 2100):
        places = buckets(count, 70)
        exact = torch.arange(count) * 70 // count  # where nothing is rounded
        assert len(places) == count
        assert int((places - exact).abs().max()) <= 1


def test_wrong_tensors_and_sizes_are_named(minicpm: Callable[[str], Path]) -> None:
    path = minicpm("2.6")
    config = read_config(path)
    family, *_ = load(path)
    weights = encoder_weights(path, family)
    make = family.encoders["vision"]
    missing = {name: tensor for name, tensor in weights.items() if name != "resampler.ln_kv.bias"}
    with pytest.raises(ConfigurationError, match=r"no tensor 'resampler\.ln_kv\.bias'"):
        make(config, torch.float32, CPU).load(missing)
    with pytest.raises(ConfigurationError, match=r"does not use: stray\.weight"):
        make(config, torch.float32, CPU).load(weights | {"stray.weight": torch.ones(7)})
    with pytest.raises(ConfigurationError, match=r"hidden_size is 200 .* a multiple of 128"):
        make(config | {"hidden_size": 200}, torch.float32, CPU)
    vision = {key: value for key, value in config["vision_config"].items() if key != "num_hidden_layers"}
    with pytest.raises(ConfigurationError, match="lacks num_hidden_layers"):
        make(config | {"vision_config": vision}, torch.float32, CPU)
    # Without its last layer, as `drop_vision_last_layer` wants it.
    shorter = {name: tensor for name, tensor in weights.items() if "layers.1." not in name}
    dropped = make(config | {"drop_vision_last_layer": True}, torch.float32, CPU)
    dropped.load(shorter)
    assert isinstance(dropped, Navit)
    assert dropped.config.depth == 1
