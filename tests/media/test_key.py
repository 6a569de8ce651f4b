from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from sensorium.media.key import media_key
from sensorium.media.sampling import Sampling
from sensorium.types import MediaItem, MediaOptions


def key(
    data: bytes = b"data",
    salt: str = "salt",
    fingerprint: bytes = b"print",
    options: dict[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    where: str = "",
) -> bytes:
    return media_key(MediaItem("image", data, where, size), salt, fingerprint, options or {})


EVEN = Sampling()


def video_key(sampling: Sampling | None = EVEN, options: dict[str, Any] | None = None, **fields: Any) -> bytes:
    item = MediaItem("video", b"" if "frames" in fields else b"data", "", **fields)
    return media_key(item, "salt", b"print", options or {}, sampling)


def test_a_video_has_no_key_without_its_sampling_and_one_however_that_was_said() -> None:
    with pytest.raises(ValueError, match="sampling"):
        video_key(None)
    said = MediaItem("video", b"data", "", options=MediaOptions(fps=1.0))
    assert media_key(said, "salt", b"print", {}, Sampling(fps=1.0)) == video_key(Sampling(fps=1.0))


def test_equal_items_have_equal_keys_wherever_they_stand() -> None:
    assert key(where="a") == key(where="b")
    assert len(key()) == 16
    assert key(options={"min_pixels": 1, "max_pixels": 2}) == key(options={"max_pixels": 2, "min_pixels": 1})


def test_every_part_counts() -> None:
    keys = [
        key(),
        key(data=b"datb"),
        key(salt="other"),
        key(fingerprint=b"other"),
        key(options={"max_pixels": 1}),
        key(options={"max_pixels": 2}),
        key(options={"min_pixels": 1}),
        key(size=(1, 4)),
        key(size=(4, 1)),
        key(size=(11, 4)),
        key(size=(1, 14)),
        media_key(MediaItem("audio", b"data", ""), "salt", b"print", {}),
        media_key(MediaItem("audio", b"data", "", rate=0), "salt", b"print", {}),
        media_key(MediaItem("audio", b"data", "", rate=8000), "salt", b"print", {}),
        media_key(MediaItem("audio", b"data", "", options=MediaOptions(start=1.0)), "salt", b"print", {}),
        media_key(MediaItem("audio", b"data", "", options=MediaOptions(end=1.0)), "salt", b"print", {}),
        video_key(),
        video_key(Sampling(fps=1.0)),
        video_key(Sampling(num_frames=2)),
        video_key(Sampling(max_frames=2)),
        video_key(Sampling(spread="middles")),
        video_key(Sampling(start=1.0)),
        video_key(options={"max_pixels": 9}),
        video_key(frames=(b"da", b"ta")),
        video_key(frames=(b"dat", b"a")),
        video_key(frames=(b"data",)),
        video_key(times=(0.0, 1.0)),
        video_key(size=(2, 2)),
    ]
    assert len(set(keys)) == len(keys)


def test_parts_cannot_run_into_each_other() -> None:
    cuts = [
        ("abcdef"[:i], b"abcdef"[i:j], b"abcdef"[j:]) for i, j in itertools.combinations_with_replacement(range(7), 2)
    ]
    assert len({key(salt=salt, fingerprint=print_, data=data) for salt, print_, data in cuts}) == len(cuts)


def test_no_collision_among_many_structured_items() -> None:
    draw = random.Random(0)
    items = {
        (
            draw.choice(["", "a", "aa", "\ud800"]),
            draw.choice([b"", b"a", b"\0", b"\0\0"]),
            draw.choice([None, (1, 11), (11, 1), (111, 1)]),
            draw.choice([None, 1, 11]),
            bytes(draw.choices(b"\0a", k=draw.randrange(12))),
        )
        for _ in range(20_000)
    }
    keys = {
        key(data, salt, fp, {} if limit is None else {"max_pixels": limit}, size)
        for salt, fp, size, limit, data in items
    }
    assert len(keys) == len(items)
