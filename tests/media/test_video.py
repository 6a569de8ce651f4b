"""What videos give after decoding; all of it through the child, as in service."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from tests.clips import (
    HEIGHT,
    WIDTH,
    av_sound,
    number_of,
    numbered,
    patched,
    picture,
    sound,
    tone,
    video,
)

from sensorium.errors import MediaError
from sensorium.media.decode import Decoder
from sensorium.media.decoded import Video
from sensorium.media.sampling import Sampling
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem

WHERE = "messages[1].content[0].video_url"
EIGHT = Sampling(num_frames=8)


def item(data: bytes = b"", **fields: Any) -> MediaItem:
    return MediaItem("video", data, WHERE, **fields)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(MediaLimits())
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return video(header_first=True)


def refused(decoder: Decoder, given: MediaItem | bytes, sampling: Sampling = EIGHT, **options: Any) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decoder.decode_video(item(given) if isinstance(given, bytes) else given, sampling, **options)
    assert caught.value.param == WHERE
    assert caught.value.message.startswith(f"{WHERE}: the video ")
    return caught.value


def check_numbers(found: Video, total: int = 40) -> None:
    assert [number_of(frame) for frame in found.frames] == list(found.indices)
    assert found.num_source_frames == total


@pytest.mark.parametrize(
    ("container", "codec", "pixels", "options"),
    [
        ("mp4", "libx264", "yuv420p", None),
        ("matroska", "libx264", "yuv420p", None),
        ("mpegts", "libx264", "yuv420p", None),
        ("flv", "libx264", "yuv420p", None),
        ("webm", "libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
        ("avi", "mpeg4", "yuv420p", {"g": "12", "bf": "2"}),
        ("mov", "mjpeg", "yuvj420p", {}),
        ("mpeg", "mpeg1video", "yuv420p", {"g": "12", "bf": "2"}),
        ("gif", "gif", "bgr8", {}),
    ],
)
@pytest.mark.parametrize("sampling", [EIGHT, Sampling(num_frames=2, start=2.5, end=3.3)])
def test_containers_and_codecs(
    decoder: Decoder, container: str, codec: str, pixels: str, options: Any, sampling: Sampling
) -> None:
    rate = 25 if container == "mpeg" else 10
    sampling = EIGHT if container == "mpeg" else sampling
    found = decoder.decode_video(item(video(40, container, codec, rate=rate, pixels=pixels, options=options)), sampling)
    assert found.frames.shape == (len(found.indices), HEIGHT, WIDTH, 3)
    assert found.frames.dtype == np.uint8
    check_numbers(found, found.num_source_frames)
    assert found.num_source_frames in (39, 40)  # MPEG-1 says of its last frame only when it is over
    if container != "mpeg":
        assert found.times_s == pytest.approx([index / 10 for index in found.indices], abs=0.002)
        assert found.source_fps == pytest.approx(10, rel=0.02)
        assert found.duration_s == pytest.approx(4, rel=0.02)
        assert found.indices == ((0, 6, 11, 17, 22, 28, 33, 39) if sampling == EIGHT else (25, 33))


def test_frames_are_those_of_a_plain_decoder(decoder: Decoder, mp4: bytes) -> None:
    with av.open(io.BytesIO(mp4)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for sampling in (Sampling(num_frames=40), Sampling(num_frames=6), Sampling(num_frames=2, start=3.7)):
        found = decoder.decode_video(item(mp4), sampling)
        assert all((frame == plain[index]).all() for frame, index in zip(found.frames, found.indices, strict=True))


def test_uneven_times_are_the_frames_own(decoder: Decoder) -> None:
    pts = [0, 1, 2, 10, 11, 40, 41, 90]
    found = decoder.decode_video(item(video(8, "matroska", pts=pts)), Sampling(num_frames=8))
    assert found.times_s == pytest.approx([at / 10 for at in pts], abs=0.002)
    check_numbers(found, 8)


@pytest.mark.parametrize(("degrees", "matrix"), [(90, (0, 1, -1, 0)), (180, (-1, 0, 0, -1)), (270, (0, -1, 1, 0))])
def test_rotation_is_honoured(decoder: Decoder, mp4: bytes, degrees: int, matrix: tuple[int, ...]) -> None:
    a, b, c, d = (value << 16 for value in matrix)
    turned = patched(mp4, b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    straight = decoder.decode_video(item(mp4), Sampling(num_frames=2)).frames
    found = decoder.decode_video(item(turned), Sampling(num_frames=2))
    assert found.frames.shape[1:3] == found.source_size == ((WIDTH, HEIGHT) if degrees % 180 else (HEIGHT, WIDTH))
    assert (found.frames == np.rot90(straight, -degrees // 90, axes=(1, 2))).all()  # the angle is clockwise


def test_frames_are_shrunk_in_the_child(decoder: Decoder, mp4: bytes) -> None:
    found = decoder.decode_video(item(mp4), EIGHT, max_pixels=WIDTH * HEIGHT // 4)
    assert (found.frames.shape[1:3], found.source_size) == ((HEIGHT // 2, WIDTH // 2), (HEIGHT, WIDTH))
    check_numbers(found)


def test_animated_webp(decoder: Decoder) -> None:
    pages = [Image.fromarray(numbered(number)) for number in range(12)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "WEBP", save_all=True, append_images=pages[1:], duration=[100] * 6 + [300] * 6, lossless=True)
    found = decoder.decode_video(item(buffer.getvalue()), Sampling(num_frames=4))
    assert (found.indices, found.times_s) == ((0, 4, 7, 11), pytest.approx((0, 0.4, 0.9, 2.1)))
    check_numbers(found, 12)
    assert "damaged" in refused(decoder, buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3]).message


def test_a_list_of_pictures_is_a_video(decoder: Decoder) -> None:
    pages = tuple(picture(number, kind) for number, kind in enumerate(["PNG", "JPEG", "WEBP", "BMP", "PNG"]))
    found = decoder.decode_video(item(frames=pages), Sampling(fps=2.0))
    assert (found.indices, found.times_s) == ((0, 1, 2, 3, 4), (0.0, 0.5, 1.0, 1.5, 2.0))
    check_numbers(found, 5)
    assert decoder.decode_video(item(frames=pages), Sampling(num_frames=2)).indices == (0, 4)
    other = decoder.decode_video(item(frames=(pages[0], picture(7, width=32, height=24))), Sampling())
    assert other.frames.shape == (2, HEIGHT, WIDTH, 3)
    assert number_of(other.frames[1]) == 7
    message = refused(decoder, item(frames=(pages[0], b"junk"))).message
    assert "has a frame, number 1, that is not a JPEG" in message


def test_raw_frames_need_no_child(decoder: Decoder) -> None:
    raw = np.stack([numbered(number) for number in range(6)])
    found = Decoder(MediaLimits()).decode_video(item(raw.tobytes(), size=(HEIGHT, WIDTH)), Sampling(fps=2.0))
    assert (found.frames == raw).all()
    assert (found.times_s[-1], found.source_fps) == (2.5, 2.0)
    timed = item(raw.tobytes(), size=(HEIGHT, WIDTH), times=(0, 1, 2, 4, 8, 9))
    assert decoder.decode_video(timed, Sampling(max_frames=2)).times_s == (0, 9)
    assert "no number of them" in refused(decoder, item(raw.tobytes()[:-1], size=(HEIGHT, WIDTH))).message


HOSTILE = {
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "dash": b'<?xml version="1.0"?><MPD><Period/></MPD>',
    "empty": b"",
    "picture": picture(1),
    "magic alone": b"\0\0\0\x20ftypisom",
    "matroska alone": b"\x1a\x45\xdf\xa3" + bytes(100),
    "zeros": bytes(10_000),
    "sound": sound(tone()),
    "mp3": sound(tone(), kind="MP3"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_video(decoder: Decoder, name: str) -> None:
    message = refused(decoder, HOSTILE[name]).message
    assert re.search("no format read here|is empty|image_url|audio_url|truncated or damaged", message), message


def test_streams_that_are_not_served(decoder: Decoder) -> None:
    m4a = av_sound(tone(rate=48_000), "mp4", "aac")
    assert "without a video stream; send it as audio_url" in refused(decoder, m4a).message
    png = video(4, "mov", "png", pixels="rgb24", options={})
    assert "is coded as png, which is not decoded here" in refused(decoder, png).message


def test_files_that_end_too_early(decoder: Decoder, mp4: bytes) -> None:
    assert re.search(
        r"its header promises 4\.0 s and [123]\.\d s are there", refused(decoder, mp4[: len(mp4) * 3 // 4]).message
    )
    assert "truncated or damaged" in refused(decoder, video()[:2000]).message  # what says where frames are comes last
    matroska = video(container="matroska")
    assert "its header promises 4.0 s" in refused(decoder, matroska[: len(matroska) // 2]).message


def test_headers_that_lie_about_time(decoder: Decoder, mp4: bytes) -> None:
    ten_hours = patched(mp4, b"mdhd", 16, struct.pack(">I", 36_000 * 10_240))
    assert decoder.decode_video(item(ten_hours), EIGHT).duration_s == pytest.approx(4)
    slow = patched(mp4, b"mdhd", 12, struct.pack(">I", 1))  # frames of 1024 s each, and an edit list of 4 s
    assert decoder.decode_video(item(slow), EIGHT).indices == (0,)
    far = refused(decoder, video(3, "matroska", pts=[0, 1, 400_000]))
    assert (far.code, "--max-video-seconds" in far.message) == ("media_too_large", True)
    still = decoder.decode_video(item(video(1)), Sampling())
    assert (still.indices, still.times_s) == ((0,), (0.0,))


def test_limits_on_pixels_and_frames(mp4: bytes) -> None:
    decoder = Decoder(MediaLimits(max_frame_pixels=WIDTH * HEIGHT - 1, max_video_frames=4))
    error = refused(decoder, mp4)
    assert (error.code, "--max-frame-pixels" in error.message) == ("media_too_large", True)
    decoder.close()
    decoder = Decoder(MediaLimits(max_video_pixels=WIDTH * HEIGHT * 4, max_video_frames=6))
    assert "gives 6 frames of 64x48" in refused(decoder, mp4, Sampling(num_frames=30)).message
    assert len(decoder.decode_video(item(mp4), Sampling(num_frames=30), WIDTH * HEIGHT // 4).frames) == 6
    decoder.close()


def test_a_video_that_hangs_its_decoder_keeps_no_picture_waiting(mp4: bytes) -> None:
    decoder = Decoder(MediaLimits(decode_clip_timeout_s=0.6))
    decoder.start(("video", "image"))
    still = MediaItem("image", picture(3), "there")
    decoder.decode_image(still)
    process = decoder._pools["video"]._idle.queue[0].result().process  # type: ignore[union-attr]
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert "its decoder took longer than 0.6 s" in refused(decoder, mp4).message
    assert time.monotonic() - began < 10
    assert process.poll() == -signal.SIGKILL
    assert decoder.decode_image(still).shape == (HEIGHT, WIDTH, 3)
    decoder.close()


def test_the_child_can_open_nothing(decoder: Decoder, mp4: bytes) -> None:
    decoder.decode_video(item(mp4), EIGHT)
    pid = decoder._pools["video"]._idle.queue[0].result().process.pid  # type: ignore[union-attr]
    assert re.search(r"Max open files\s+4\s+4 ", Path(f"/proc/{pid}/limits").read_text())
    targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert sorted(target.partition(":")[0] for target in targets) == ["/dev/null"] * 3 + ["socket"]
    assert not re.search("torch|numpy|msgspec", Path(f"/proc/{pid}/maps").read_text())


def test_running_out_of_memory_is_said(decoder: Decoder) -> None:
    large = video(2, "mov", "mjpeg", pixels="yuvj420p", options={}, size=(4096, 4096))
    small = Decoder(MediaLimits(decode_memory_bytes=24 << 20))
    message = refused(small, large).message
    assert re.search("needs more than 24 MiB|damaged", message), message
    small.close()


def test_damaged_files_give_a_video_or_a_media_error(mp4: bytes) -> None:
    draw = random.Random(7)
    seeds = [mp4, video(12, "matroska"), video(12, "gif", "gif", pixels="bgr8", options={})]
    decoder = Decoder(MediaLimits(max_frame_pixels=1_000_000, decode_memory_bytes=256 << 20, decode_clip_timeout_s=20))
    unfit = re.compile(r"\b0x[0-9a-f]{4}|site-packages|/tmp|Traceback|<|its decoder")  # the last: no child was lost
    good, errors = 0, []
    for _ in range(120):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice([1, 4, 16])):
            at = draw.randrange(len(data))
            data[at : at + 4] = draw.choice([b"\xff" * 4, bytes(4), draw.randbytes(4), b"\x7f\xff\xff\xff"])
        try:
            decoder.decode_video(item(bytes(data)), Sampling(num_frames=2))
            good += 1
        except MediaError as error:  # anything else fails the test
            errors.append(error)
    decoder.close()
    assert {error.param for error in errors} == {WHERE}
    assert [error.message for error in errors if unfit.search(error.message)] == []
    assert min(good, len(errors)) > 10
