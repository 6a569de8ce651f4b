"""Media that a program has in memory: vLLM's forms."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.errors import InvalidRequest
from sensorium.in_memory import to_items
from sensorium.inputs import from_messages, from_prompt
from sensorium.media.image import decode_rgb
from sensorium.types import MediaItem, MediaOptions, MediaSlot, SamplingParams

CLIP = np.arange(3 * 2 * 4 * 3, dtype=np.uint8).reshape(3, 2, 4, 3)
WAVE = np.linspace(-1, 1, 50, dtype=np.float32)


def items(**data: Any) -> tuple[MediaItem, ...]:
    return from_prompt({"prompt": "x", "multi_modal_data": data}, "m", "id", SamplingParams()).request.media


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (CLIP, 1),
        (list(CLIP), 1),
        ([Image.fromarray(frame) for frame in CLIP], 1),
        ([CLIP], 1),
        ([CLIP, CLIP], 2),
        ([list(CLIP), CLIP], 2),
        ((CLIP, {"fps": 2.0}), 1),
        ([(CLIP, {"fps": 2.0}), (CLIP, None)], 2),
    ],
)
def test_videos(value: Any, count: int) -> None:
    found = items(video=value)
    assert len(found) == count
    assert all((item.kind, item.data, item.size) == ("video", CLIP.tobytes(), (2, 4)) for item in found)


def test_metadata_say_when_frames_were() -> None:
    def times(**metadata: Any) -> tuple[float, ...]:
        return items(video=(CLIP, metadata))[0].times

    assert (times(), times(fps=2.0), times(fps=10, frames_indices=[5, 6, 25])) == ((), (0, 0.5, 1), (0, 0.1, 2))
    with pytest.raises(InvalidRequest, match="2 frames_indices for 3 frames"):
        times(fps=1, frames_indices=[0, 1])


@pytest.mark.parametrize(
    ("value", "rates"),
    [
        (WAVE, [0]),
        ((WAVE, 8000), [8000]),
        ((WAVE, 8000.0), [8000]),
        ([WAVE, (WAVE, 8000)], [0, 8000]),
        (np.stack([WAVE, WAVE]), [0]),
        (WAVE.astype(np.float64), [0]),
    ],
)
def test_sounds(value: Any, rates: list[int]) -> None:
    found = items(audio=value)
    assert [item.rate for item in found] == rates
    for item in found:
        assert np.allclose(np.frombuffer(item.data, "<f4"), WAVE)
    assert np.frombuffer(items(audio=np.array([-32768, 16384], np.int16))[0].data, "<f4").tolist() == [-1.0, 0.5]


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("video", CLIP.astype(float), r"\['video'\]\[0\] is an array of shape \(3, 2, 4, 3\) and type float64"),
        ("video", "clip.mp4", "is str; .*video_url"),
        ("video", [CLIP[0], CLIP[0][:1]], "frame 1 has the shape"),
        ("video", np.zeros((0, 2, 4, 3), np.uint8), "shape"),
        ("audio", "a.wav", r"\['audio'\]\[0\] is str"),
        ("audio", WAVE.astype(np.complex64), "complex64"),
        ("audio", np.zeros((100, 50), np.float32), "its shape must be"),
        ("audio", (WAVE, 8000.5), "8000.5"),
        ("audio", np.zeros(0, np.float32), "shape"),
    ],
)
def test_other_things_are_refused_by_place(kind: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        items(**{kind: value})


def test_conversations_hold_them_beside_addresses() -> None:
    content = [
        {"type": "video", "video": "http://x/v.mp4", "fps": 1},
        {"type": "video", "video": list(CLIP), "max_frames": 2},
        {"type": "audio", "audio": (WAVE, 8000)},
        {"type": "video", "video": ["http://x/0.png", "http://x/1.png"]},
        {"type": "image", "image": "http://x/i.png"},
    ]
    parsed = from_messages([{"role": "user", "content": content}], "m", "id", SamplingParams())
    assert parsed.request.messages is not None
    slots = [part for part in parsed.request.messages[0].content if isinstance(part, MediaSlot)]
    assert [slot.index for slot in slots] == [2, 0, 1, 3, 4]
    assert [item.where for item in parsed.request.media] == ["messages[0].content[1]", "messages[0].content[2]"]
    assert parsed.request.media[0].options == MediaOptions(max_frames=2)
    assert [source.kind for source in parsed.sources] == ["video", "video", "image"]
    assert parsed.sources[1].frames == ("http://x/0.png", "http://x/1.png")
    assert to_items("image", (Image.new("RGB", (1, 1)),) * 2, "here")[1].where == "here[1]"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "P", "CMYK", "1"])
def test_a_picture_in_memory_is_seen_as_its_file_is(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # set by decoding, for the whole process
    if mode == "I;16":
        picture = Image.fromarray(np.array([[0, 300], [40_000, 65_535]], np.uint16))
    elif mode == "P":
        picture = Image.new("P", (2, 2), 1)
        picture.putpalette([255, 0, 0, 0, 255, 0])
        picture.info["transparency"] = 1
    else:
        picture = Image.new("RGBA", (2, 2), (9, 8, 7, 0)).convert(mode)
    assert picture.mode == mode
    file = io.BytesIO()
    picture.save(file, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 100} if mode == "CMYK" else {}))
    seen = decode_rgb(file.getvalue(), 1000, 200)
    (item,) = items(image=picture)
    assert item.data == seen.tobytes()
