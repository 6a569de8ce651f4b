"""Fetching what is not a picture: limits of each kind, and videos that are lists of frames."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import MediaError
from sensorium.media.fetch import fetch_media
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaOptions, MediaSource

FRAMES = tuple(bytes([65 + number]) * 50 for number in range(4))
LIST = "data:video/jpeg;base64," + ",".join(base64.b64encode(frame).decode() for frame in FRAMES)


def fetch(*sources: MediaSource, **limits: Any) -> list[MediaItem]:
    return asyncio.run(fetch_media(sources, MediaLimits(**limits)))


def refused(*sources: MediaSource, **limits: Any) -> MediaError:
    with pytest.raises(MediaError) as caught:
        fetch(*sources, **limits)
    return caught.value


def data(size: int, label: str = "video/mp4") -> str:
    return f"data:{label};base64,{base64.b64encode(bytes(size)).decode()}"


@pytest.mark.parametrize("prefix", ["data:video/jpeg;base64,", "DATA: video/PNG ; base64,", " data:video/webp;base64,"])
def test_a_data_url_of_frames(prefix: str) -> None:
    url = prefix + LIST.partition(",")[2]
    options = MediaOptions(fps=4.0)
    (item,) = fetch(MediaSource("video", url, "here", options))
    assert (item.data, item.frames, item.options) == (b"", FRAMES, options)


def test_only_a_video_is_a_list() -> None:
    assert refused(MediaSource("image", LIST, "here")).message.endswith("does not use.")
    (item,) = fetch(MediaSource("video", data(9), "here"))
    assert (item.data, item.frames) == (bytes(9), ())


def test_a_list_of_urls(tmp_path: Path) -> None:
    for number, frame in enumerate(FRAMES):
        (tmp_path / f"{number}.jpg").write_bytes(frame)
    urls = tuple(f"file://{tmp_path}/{number}.jpg" for number in (0, 1, 1, 3))
    (item,) = fetch(MediaSource("video", "", "here", frames=urls), allowed_local_path=str(tmp_path))
    assert item.frames == (FRAMES[0], FRAMES[1], FRAMES[1], FRAMES[3])
    error = refused(MediaSource("video", "", "here", frames=urls))
    assert (error.code, error.param) == ("media_forbidden", "here[0]")


def test_wrong_lists() -> None:
    assert "has 4 frames; the limit is 3" in refused(MediaSource("video", LIST, "here"), max_video_frames=3).message
    assert refused(MediaSource("video", LIST, "here"), max_video_bytes=150).code == "media_too_large"
    assert "frame 0: it has" in refused(MediaSource("video", LIST, "here"), max_bytes=40).message
    assert "frame 4 is empty" in refused(MediaSource("video", LIST + ",", "here")).message
    assert "frame 4: it is not valid base64" in refused(MediaSource("video", LIST + ",A*A=", "here")).message
    error = refused(MediaSource("video", "", "here", frames=("data:,a",) * 5), max_video_frames=4)
    assert (error.code, error.param) == ("media_too_large", "here")


@pytest.mark.parametrize(("kind", "name"), [("video", "max_video_bytes"), ("audio", "max_audio_bytes")])
def test_each_kind_has_its_own_limit(kind: Any, name: str) -> None:
    assert len(fetch(MediaSource(kind, data(100), "here"), max_bytes=10)[0].data) == 100
    error = refused(MediaSource(kind, data(100), "here"), **{name: 99})
    assert (error.code, error.param) == ("media_too_large", "here")


def test_all_items_together_have_a_limit() -> None:
    sources = [MediaSource("image", data(60 + number), f"item{number}") for number in range(5)]
    assert len(fetch(*sources[:3], max_request_bytes=200)) == 3
    error = refused(*sources, max_request_bytes=200)
    assert (error.code, "together" in error.message) == ("media_too_large", True)
    assert len(fetch(*[sources[0]] * 9, max_request_bytes=200)) == 9  # fetched once, counted once
