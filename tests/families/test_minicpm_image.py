"""Pictures of MiniCPM-V against what the authors' own processor made of the same ones (minicpm_golden.json)."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint as Files
from sensorium.families.family import Frames
from sensorium.families.minicpm_image import MinicpmImageProcessor
from sensorium.families.minicpm_slices import fit
from sensorium.families.minicpm_video import MinicpmVideoProcessor
from sensorium.families.minicpm_wording import numbering
from tests.minicpm_checkpoints import QUERIES, minicpm_config, minicpm_tokenizer

GOLDEN_FILE = Path(__file__).with_name("minicpm_golden.json")
GOLDEN: dict[str, Any] = json.loads(GOLDEN_FILE.read_text()) if GOLDEN_FILE.exists() else {}  # its maker is here too


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Coarse noise under fine noise: bicubic overshoots on it, so rounding and clipping show."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3)).repeat(9, 0).repeat(9, 1)[:height, :width]
    return np.clip(coarse + rng.integers(-20, 21, coarse.shape), 0, 255).astype(np.uint8)


def files(version: str, **changes: Any) -> Files:
    backend = minicpm_tokenizer(version)
    preprocessor = {"image_feature_size": QUERIES[version], "use_image_id": version != "2.5"} | changes
    return Files(
        minicpm_config(version),
        {"preprocessor_config.json": preprocessor},
        lambda text: list(backend.encode(text, add_special_tokens=False).ids),
    )


def read(version: str, **changes: Any) -> MinicpmImageProcessor:
    return MinicpmImageProcessor.read(files(version, **changes), one_slice_tag=version == "2.5")


def authors_text(text: str, version: str) -> list[int]:
    """Ids of a text of the golden file, in which one <unk> stands for all queries of a slice."""
    return files(version).encode(text.replace("<unk>", "<unk>" * QUERIES[version]))


def test_the_golden_file_is_about_many_shapes() -> None:
    shapes = {(width, height) for width, height, *_ in GOLDEN["2.6"]["texts"]}
    assert len(shapes) >= 40
    assert max(width / height for width, height in shapes) > 10000


@pytest.mark.parametrize("version", ["2.5", "2.6", "4.0"])
def test_slices_and_tokens_equal_the_authors(version: str) -> None:
    processor = read(version)
    for width, height, most, grid, text in GOLDEN["2.5" if version == "2.5" else "2.6"]["texts"]:
        options = {"max_slice_nums": most}
        slices = processor.slices(height, width, options)
        assert slices == (None if grid is None else tuple(grid)), (width, height, most)
        layout = processor.layout(height, width, options)
        assert list(layout.token_ids) == authors_text(text, version)
        cells = 1 if grid is None else 1 + grid[0] * grid[1]
        assert layout.num_slots == cells * QUERIES[version]


@pytest.mark.parametrize("version", ["2.5", "2.6"])
def test_pixels_equal_the_authors_bit_for_bit(version: str) -> None:
    for width, height, most, sizes, digest in GOLDEN[version]["pixels"]:
        found = read(version)(picture(height, width), {"max_slice_nums": most})
        assert found.tensors["tgt_sizes"].tolist() == sizes
        assert found.cost == len(found.tensors["pixel_values"]) == sum(rows * columns for rows, columns in sizes)
        # The authors lay the patches of a slice side by side: (3, 14, patches * 14).
        parts = torch.split(found.tensors["pixel_values"], [rows * columns for rows, columns in sizes])
        theirs = [part.view(-1, 3, 14, 14).permute(1, 2, 0, 3).flatten(2).contiguous() for part in parts]
        ours = blake2b(b"".join(part.numpy().tobytes() for part in theirs), digest_size=16).hexdigest()
        assert ours == digest, f"{width}x{height}; the file was made with {GOLDEN['made_with']}"


@pytest.mark.parametrize("version", ["2.6", "4.0"])
def test_pictures_are_numbered(version: str) -> None:
    number = numbering(files(version))
    layout = read(version).layout(400, 900, {})
    for index, text in zip((0, 1, 12), GOLDEN["2.6"]["numbered"], strict=True):
        numbered = number(layout, index)
        assert list(numbered.token_ids) == authors_text(text, version)
        slot = files(version).token_id("<unk>")
        assert [numbered.token_ids[i] == slot for i in range(numbered.length)] == [
            any(start <= i < start + length for start, length in numbered.runs) for i in range(numbered.length)
        ]


def test_2_5_numbers_nothing() -> None:
    layout = read("2.5").layout(400, 900, {})
    assert numbering(files("2.5"))(layout, 3) == layout


@pytest.mark.parametrize("version", ["2.5", "2.6"])
@pytest.mark.parametrize("max_tokens", [10, 20, 33, 47, 60, 200])
def test_no_picture_is_longer_than_asked(version: str, max_tokens: int) -> None:
    processor = read(version).within(max_tokens)
    for width, height, *_ in GOLDEN["2.6"]["texts"]:
        layout = numbering(files(version))(processor.layout(height, width, {"max_slice_nums": 9}), 99)
        assert layout.length <= max(max_tokens, processor.layout(14, 14, {}).length + 5)
    most = processor.limits({})["max_slice_nums"]
    assert most == processor.limits({"max_slice_nums": 50})["max_slice_nums"] if most < 9 else most == 9


def test_an_operator_may_allow_more_slices() -> None:
    processor = read("2.6")
    assert processor.limits({}) == {"max_slice_nums": 9}
    assert processor.limits({"max_slice_nums": 16}) == {"max_slice_nums": 16}
    assert processor.slices(1792, 1792, {"max_slice_nums": 16}) == (4, 4)


@pytest.mark.parametrize("wrong", [0, -1, True, "4", 2.0])
def test_wrong_options_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"max_slice_nums is .* must be a whole number of slices"):
        read("2.6").layout(100, 100, {"max_slice_nums": wrong})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slice_mode": False}, "slice_mode false"),
        ({"image_feature_size": 5}, "query_num 4, preprocessor_config.json image_feature_size 5"),
    ],
)
def test_other_processing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read("2.6", **changes)


def test_fingerprints_tell_settings_apart() -> None:
    prints = [read("2.6"), read("4.0"), read("2.5"), read("2.6", max_slice_nums=4), read("2.6").within(40)]
    assert prints[0].fingerprint() == prints[1].fingerprint()
    assert len({each.fingerprint() for each in prints}) == 4


def test_a_thread_of_pixels_is_refused_where_it_would_be_long() -> None:
    assert fit(1, 10**6, 448, 14) == (14, 448 * 1000 // 14 * 14)
    assert fit(10**6, 1, 448, 14) == (14, 14)  # as the authors round
    with pytest.raises(ValueError, match=r"1x1000000 pixels; .* takes 32000 patches, .* 8192 at most\. Crop it"):
        read("2.6").layout(10**6, 1, {})


def test_a_videos_frames_are_pictures_without_numbers() -> None:
    video = MinicpmVideoProcessor.read(files("2.6"))
    frames = np.stack([picture(360, 640, seed) for seed in range(5)])
    times = np.arange(5) / 2
    one = read("2.6")(frames[3], {"max_slice_nums": 1})
    for options, slices in (({}, 1), ({"max_slice_nums": 2}, 3)):
        found = video(Frames(frames, times.tolist()), options)
        alone = [read("2.6")(frame, {"max_slice_nums": 1} | options) for frame in frames]
        assert found.layout.token_ids == sum((each.layout.token_ids for each in alone), ())
        for name in ("pixel_values", "tgt_sizes"):
            assert torch.equal(found.tensors[name], torch.cat([each.tensors[name] for each in alone]))
        assert found.layout.num_slots == 5 * slices * QUERIES["2.6"]
        assert found.cost == sum(each.cost for each in alone)
    assert video.limits({}) == {"max_slice_nums": 2}

    shorter = video.within(2 * one.layout.length)  # room for two frames: the first and the last
    found = shorter(Frames(frames, times.tolist()), {})
    assert found.layout.times == (0.0, 2.0)
    assert shorter.sampling.max_frames == 2
    ends = [read("2.6")(frames[i], {"max_slice_nums": 1}).tensors["pixel_values"] for i in (0, 4)]
    assert torch.equal(found.tensors["pixel_values"], torch.cat(ends))
    assert shorter.fingerprint() != video.fingerprint()
    with pytest.raises(ValueError, match="no frames"):
        video(Frames(frames[:0], ()), {})
