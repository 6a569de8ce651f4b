"""Media items on their way to a processor: what is decoded, how it is asked for, and what is not done twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.errors import InvalidRequest, MediaError
from sensorium.families.family import EncoderInput, Frames, Layout, Processor
from sensorium.media.decode import Decoder
from sensorium.media.decoded import Audio, Video
from sensorium.media.sampling import Sampling
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaOptions, MediaUse, Modality
from sensorium.worker.preparing import MediaPreparer


@dataclass
class Recorder:
    """Stands in for the decoder and for every processor, and notes what each is asked."""

    asked: list[Any] = field(default_factory=list)
    rate: int = 8000
    sampling: Sampling = field(default_factory=lambda: Sampling(max_frames=10))

    def frame_pixels(self, options: Mapping[str, Any]) -> int:
        return 400

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        return {"max_pixels": 100}

    def fingerprint(self) -> bytes:
        return b"recorder"

    def decode_video(self, item: MediaItem, sampling: Sampling, max_pixels: int | None) -> Video:
        self.asked.append((sampling, max_pixels))
        return Video(np.zeros((4, 2, 2, 3), np.uint8), (0.0, 1.0, 2.0, 3.0), (0, 10, 20, 29), 10.0, 4.0, 40, (2, 2))

    def decode_audio(self, item: MediaItem, rate: int) -> Audio:
        self.asked.append(rate)
        return Audio(np.zeros(5, np.float32), rate, rate)

    def __call__(self, content: Any, options: Mapping[str, Any], /) -> EncoderInput:
        self.asked.append((content, dict(options)))
        return EncoderInput({}, Layout((0, 0, 0), 3), cost=1)


def preparer(recorder: Recorder, cache: EncoderCache | None = None, **options: Any) -> MediaPreparer:
    processors = {kind: cast(Processor, recorder) for kind in ("video", "audio")}
    return MediaPreparer(
        processors, cast(Decoder, recorder), cache or EncoderCache(1 << 16), options, MediaLimits(max_video_frames=64)
    )


def prepare(made: MediaPreparer, kind: Modality, options: MediaOptions | None = None, **wanted: Any) -> bytes:
    item = MediaItem(kind, b"bytes", "messages[0]", options=options or MediaOptions())
    return made.prepare(item, "", made.merged(wanted), wanted, False)[0]


def test_a_video_is_sampled_as_the_nearest_says() -> None:
    recorder = Recorder()
    made = preparer(recorder, fps=1.0, max_pixels=90)
    prepare(made, "video")
    prepare(made, "video", max_frames=4)
    prepare(made, "video", MediaOptions(num_frames=6), fps=5)
    prepare(made, "video", max_frames=50)
    asked = [each for each, _ in recorder.asked if isinstance(each, Sampling)]
    assert [(each.fps, each.num_frames, each.max_frames) for each in asked] == [
        (1.0, None, 10),
        (1.0, None, 4),
        (5.0, 6, 10),
        (1.0, None, 10),
    ]
    assert recorder.asked[0][1] == 400
    frames, options = recorder.asked[1]
    assert isinstance(frames, Frames)
    assert frames.fps == pytest.approx(4 / 3)  # 4 frames of 30 at 10 a second
    assert options == {"max_pixels": 90}  # what is about frames is not the processor's


def test_a_sound_has_the_familys_rate() -> None:
    recorder = Recorder()
    prepare(preparer(recorder), "audio")
    assert recorder.asked[0] == 8000
    assert recorder.asked[1][0].dtype == np.float32


def test_what_is_cached_is_not_decoded_again() -> None:
    recorder, cache = Recorder(), EncoderCache(1 << 16)
    made = preparer(recorder, cache)
    key = prepare(made, "video")
    cache.put(key, torch.zeros(3, 1))
    assert prepare(made, "video") == key
    assert (made.num_decoded, made.num_reused) == (1, 1)
    others = [prepare(made, "video", fps=1.0), prepare(made, "video", MediaOptions(start=1.0)), prepare(made, "audio")]
    assert len({key, *others}) == 4
    assert made.num_decoded == 4


def test_what_is_remembered_of_long_videos_stays_small() -> None:
    class Long(Recorder):
        def __call__(self, content: Any, options: Mapping[str, Any], /) -> EncoderInput:
            return EncoderInput({}, Layout.of([1, *[2] * 30_000], 2), cost=1)

    made = preparer(Long())
    for number in range(40):
        made.prepare(MediaItem("video", str(number).encode(), "messages[0]"), "", made.merged({}), {}, False)
    kept = [layout for layout, _ in made._known.values()]
    assert len(kept) >= 1
    assert sum(layout.length for layout in kept) <= 1 << 19


def test_what_a_request_holds_twice_is_decoded_once() -> None:
    made = preparer(Recorder())
    items = [MediaItem(kind, data, f"messages[{n}]") for n, (kind, data) in enumerate(TWICE)]
    found = made.prepare_all(items, "", made.merged({}), {}, False)
    assert (made.num_decoded, made.num_reused) == (3, 2)
    assert [one.key for one in found] == [found[0].key, found[1].key, found[0].key, found[3].key, found[1].key]
    assert found[2].input is found[0].input is not None  # the engine may need it for either place
    assert [one.use.where for one in found] == [item.where for item in items]


TWICE: list[tuple[Modality, bytes]] = [
    ("video", b"a"),
    ("audio", b"a"),
    ("video", b"a"),
    ("video", b"b"),
    ("audio", b"a"),
]


def test_what_became_of_an_item_is_told_also_where_it_was_cached() -> None:
    cache = EncoderCache(1 << 16)
    made = preparer(Recorder(), cache)
    for kind, wanted in (
        ("video", MediaUse("video", "", size=(2, 2), timestamps=(0.0, 1.0, 2.0, 3.0))),
        ("audio", MediaUse("audio", "", seconds=5 / 8000)),
    ):
        for where in ("messages[0]", "messages[2]"):
            found = made.prepare(MediaItem(kind, b"bytes", where), "", made.merged({}), {}, False)  # type: ignore[arg-type]
            assert found.use == msgspec.structs.replace(wanted, where=where)
            assert (found.input is None) == (where == "messages[2]")
            cache.put(found.key, torch.zeros(3, 1))


def test_what_cannot_be_is_named() -> None:
    made = preparer(Recorder())
    with pytest.raises(MediaError, match=r"messages\[0\]: this model does not take image input"):
        made.prepare(MediaItem("image", b"", "messages[0]"), "", {}, {}, False)
    with pytest.raises(InvalidRequest, match="size is not known; this model takes max_pixels and fps and num_frames"):
        made.merged({"size": 3})
    with pytest.raises(MediaError, match="100 frames are asked for; the limit is 64"):
        prepare(made, "video", num_frames=100)
