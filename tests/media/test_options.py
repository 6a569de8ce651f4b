"""From what the item, the request and the model say to a sampling."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.errors import MediaError
from sensorium.media.options import video_sampling
from sensorium.media.sampling import Sampling
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaOptions

MODEL = Sampling(fps=2.0, max_frames=100)


def resolved(request: dict[str, Any] | None = None, **item: Any) -> Sampling:
    given = MediaItem("video", b"", "here", options=MediaOptions(**item))
    return video_sampling(given, MODEL, MediaLimits(max_video_frames=64), {"num_frames": None}, request or {})


def test_nearer_wins_and_drops_what_excludes_it() -> None:
    assert resolved() == Sampling(fps=2.0, max_frames=64)
    assert (resolved({"fps": 4}).fps, resolved({"fps": 4}, fps=1.0).fps) == (4.0, 1.0)
    assert (resolved({"fps": 4}, num_frames=8).num_frames, resolved({"num_frames": 8}, fps=1.0).num_frames) == (8, None)
    assert resolved({"max_pixels": 5, "fps": None}) == resolved()
    assert (resolved(start=1.0, end=2.0).start, resolved(end=2.0).end) == (1.0, 2.0)


def test_the_request_wins_over_the_server() -> None:
    item = MediaItem("video", b"", "here")
    found = video_sampling(item, MODEL, MediaLimits(), {"num_frames": 8, "max_frames": 50}, {"fps": 1})
    assert (found.fps, found.num_frames, found.max_frames) == (1.0, None, 50)


def test_ceilings_can_only_be_lowered() -> None:
    assert [resolved({"max_frames": most}).max_frames for most in (1, 64, 1000)] == [1, 64, 64]
    assert resolved({"max_frames": 5}, max_frames=9).max_frames == 9
    with pytest.raises(MediaError, match="65 frames are asked for; the limit is 64") as caught:
        resolved(num_frames=65)
    assert caught.value.param == "here"
