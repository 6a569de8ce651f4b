"""From an encoded video to the frames that are wanted. Runs in a decoding child: the input is hostile.

The file is read twice. First packets only, which gives the time of every frame whatever the header says; then, from
the last keyframe before each wanted frame, what it takes to decode that frame.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from sensorium.media.check import Rejected, check_size, fit
from sensorium.media.clip_header import GIF, WEBP, ClipFormat, clip_format, webp_times
from sensorium.media.container import VIDEO_CODECS, check_whole, codec_of, opened, packets
from sensorium.media.header import webp_size
from sensorium.media.image import decode_rgb, to_rgb
from sensorium.media.sampling import Sampling, even_times, sample, thin

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
_TRANSPARENT = frozenset({"bgra", "rgba", "argb", "abgr", "pal8", "yuva420p", "yuva444p"})
Entry = tuple[int, int, bool]  # pts, dts, is a keyframe
_NUM_THREADS = min(2, os.cpu_count() or 1)
_RATE_TOLERANCE = 0.02


@dataclass(frozen=True)
class VideoLimits:
    """Ceilings; pixels are of one frame, but for `max_total_pixels`, which are of all frames given back."""

    max_seconds: float
    max_frame_pixels: int
    max_total_pixels: int
    max_pixels: int  # of one picture of a list
    max_aspect_ratio: int


@dataclass(frozen=True)
class Picked:
    """What will be sent: `frames` yields (seconds, PIL image of `size`), one for every index, in order."""

    indices: list[int]
    size: tuple[int, int]  # height, width
    source_size: tuple[int, int]
    source_fps: float
    duration_s: float
    num_source_frames: int
    frames: Iterator[tuple[float, Image.Image]]


@contextmanager
def picked_frames(
    files: Sequence[bytes | bytearray], listed: bool, sampling: Sampling, max_pixels: int | None, limits: VideoLimits
) -> Iterator[Picked]:
    """Find out what of a video is wanted; its frames are decoded while they are taken.

    Args:
        files: one video file, or, where `listed`, one picture file per frame.
        max_pixels: larger frames are shrunk to this, and to less where all together would be over the limit; None: as
            they are.

    Raises:
        Rejected: unknown, damaged, truncated, or over a limit.
        MemoryError: decoding needs more than the process may have.
    """
    if listed:
        yield _from_pictures(files, sampling, max_pixels, limits)
        return
    found = clip_format(files[0])
    if found == WEBP:
        yield _from_webp(files[0], sampling, max_pixels, limits)
        return
    if not found.demuxer:
        raise Rejected(f"is a {found.name} file, which has no pictures; send it as audio_url")
    with opened(files[0], found.demuxer) as container:
        index = _index(container, found, limits)
    with opened(files[0], found.demuxer) as container:
        yield _from_container(container, found, index, sampling, max_pixels, limits)


def _from_container(
    container: InputContainer,
    found: ClipFormat,
    index: list[Entry],
    sampling: Sampling,
    max_pixels: int | None,
    limits: VideoLimits,
) -> Picked:
    stream = _video_stream(container, found)
    pts = [entry[0] for entry in index]
    times = [_seconds(entry - pts[0], stream.time_base) for entry in pts]
    fps = _rate(stream, times)
    indices = sample(times, fps, sampling)
    # What comes between the frames of a GIF is drawn over the one before, whatever its packets say.
    keys = [(at, dts) for at, dts, is_key in index if is_key and found != GIF] or [index[0][:2]]
    decoded = _decode(container, stream, keys, [pts[at] for at in indices])
    first = next(decoded, None)
    if first is None:
        raise Rejected(f"is damaged: no frame of its {codec_of(stream, VIDEO_CODECS)} stream can be decoded")
    turn = _TURNS.get(round(first.rotation) % 360)
    height, width = _checked(first, limits)
    scaled = _fit(height, width, max_pixels, len(indices), limits)
    source, size = (height, width), scaled
    if turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270):
        source, size = (width, height), (scaled[1], scaled[0])
    _check_total(len(indices), size, limits)

    def frames() -> Iterator[tuple[float, Image.Image]]:
        frame: Any = first
        for done in range(len(indices)):
            if frame is None:
                raise Rejected(f"is damaged: only {done} of the {len(indices)} frames wanted can be decoded")
            _checked(frame, limits)
            image = _to_image(frame, scaled)
            seconds = _seconds(frame.pts - pts[0], stream.time_base)
            yield seconds, image if turn is None else image.transpose(turn)
            frame = next(decoded, None)

    duration = times[-1] + (1 / fps if fps else 0.0)
    return Picked(indices, size, source, fps, duration, len(times), frames())


def _video_stream(container: InputContainer, found: ClipFormat) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        sound = "; send it as audio_url" if container.streams.audio else ""
        raise Rejected(f"is a {found.name} file without a video stream{sound}")
    stream = streams[0]
    codec_of(stream, VIDEO_CODECS)
    return stream


def _index(container: InputContainer, found: ClipFormat, limits: VideoLimits) -> list[Entry]:
    """Every frame, in the order in which they are shown."""
    stream = _video_stream(container, found)
    index: list[Entry] = []
    end_s = 0.0
    start_s = (container.start_time or 0) / av.time_base
    for packet in packets(container):
        base = packet.time_base
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and base is not None:
            end_s = max(end_s, _seconds(stamp + (packet.duration or 0), base) - start_s)
        if packet.stream_index == stream.index and not packet.is_discard:
            stamp = len(index) if stamp is None else stamp
            index.append((stamp, packet.dts if packet.dts is not None else stamp, packet.is_keyframe))
            if _seconds(stamp - index[0][0], stream.time_base) > limits.max_seconds:
                raise Rejected(
                    f"is longer than {limits.max_seconds:g} s, the limit; send a shorter one or raise "
                    "--max-video-seconds",
                    "media_too_large",
                )
    if not index:
        raise Rejected(f"is a {found.name} file whose video stream has no frames: it is truncated or damaged")
    check_whole(container, found.demuxer, end_s)
    return sorted(index)


def _seconds(stamp: int, base: Fraction | None) -> float:
    return stamp * base.numerator / base.denominator if base else 0.0


def _rate(stream: VideoStream, times: Sequence[float]) -> float:
    """Frames per second: the container's exact ratio where it agrees with the frames' own times, else theirs."""
    said = float(stream.average_rate or 0)
    if len(times) < 2 or times[-1] <= 0:
        return said
    seen = (len(times) - 1) / times[-1]
    return said if abs(said / seen - 1) < _RATE_TOLERANCE else seen


def _decode(
    container: InputContainer, stream: VideoStream, keys: list[tuple[int, int]], wanted: list[int]
) -> Iterator[Any]:
    """Yield the frame shown at each of the times `wanted` (pts, ascending); ends early where the data does.

    Args:
        keys: (pts, dts) of the keyframes, ascending.
    """
    context: Any = stream.codec_context
    context.thread_count, context.thread_type = _NUM_THREADS, "AUTO"
    pending, exact = list(reversed(wanted)), set(wanted)
    sought: int | None = None  # pts of the keyframe last gone to
    fresh = True
    while pending:
        key = _key_before(keys, pending[-1])
        if sought is not None and key[0] <= sought:
            return  # the end was met on the way there
        if not (fresh and key == keys[0]):
            _seek(container, stream, key[1])
        fresh = False
        sought, fed, landed = key[0], key[0], False
        for packet in container.demux(stream):
            # Frames nobody refers to need no decoding unless they are wanted themselves.
            context.skip_frame = "DEFAULT" if not packet.size or packet.pts in exact else "NONREF"
            for frame in _decoded(packet):
                if not landed and frame.pts > pending[-1] and key != keys[0]:
                    keys, sought = keys[:1], None  # it went too far: this file has to be read from its beginning
                    break
                landed = True
                while pending and frame.pts >= pending[-1]:
                    pending.pop()
                    yield frame
            if sought is None or not pending:
                break
            fed = fed if packet.pts is None else max(fed, packet.pts)
            if _key_before(keys, pending[-1])[0] > fed:
                break


def _key_before(keys: list[tuple[int, int]], pts: int) -> tuple[int, int]:
    return keys[max(0, bisect_right(keys, pts, key=lambda entry: entry[0]) - 1)]


def _seek(container: InputContainer, stream: VideoStream, dts: int) -> None:
    try:
        container.seek(dts, stream=stream)
    except av.FFmpegError:
        raise Rejected("cannot be read twice: its container is damaged") from None


def _decoded(packet: Any) -> list[Any]:
    try:
        return [frame for frame in packet.decode() if frame.pts is not None]
    except MemoryError:
        raise
    except av.FFmpegError:  # one damaged packet; whether anything wanted is missing shows at the end
        return []


def _checked(frame: av.VideoFrame, limits: VideoLimits) -> tuple[int, int]:
    check_size(frame.height, frame.width, limits.max_frame_pixels, limits.max_aspect_ratio, "--max-frame-pixels")
    return frame.height, frame.width


def _check_total(count: int, size: tuple[int, int], limits: VideoLimits) -> None:
    height, width = size
    if count * height * width > limits.max_total_pixels:
        raise Rejected(
            f"gives {count} frames of {width}x{height} = {count * height * width / 1e6:.0f} megapixels; the limit is "
            f"{limits.max_total_pixels / 1e6:.0f}. Ask for fewer frames (fps, num_frames, max_frames)",
            "media_too_large",
        )


def _to_image(frame: av.VideoFrame, size: tuple[int, int]) -> Image.Image:
    height, width = size
    mode, form = ("RGBA", "rgba") if frame.format.name in _TRANSPARENT else ("RGB", "rgb24")
    shrunk = (height, width) != (frame.height, frame.width)
    packed = frame.reformat(width, height, form, interpolation="AREA" if shrunk else None)
    plane = packed.planes[0]
    return to_rgb(Image.frombytes(mode, (width, height), memoryview(plane), "raw", mode, plane.line_size, 1))


def _from_webp(data: bytes | bytearray, sampling: Sampling, max_pixels: int | None, limits: VideoLimits) -> Picked:
    times = webp_times(data)
    source = webp_size(data)
    if not times or source is None:
        raise Rejected("is a WebP picture without animation; send it as image_url")
    check_size(*source, limits.max_frame_pixels, limits.max_aspect_ratio, "--max-frame-pixels")
    if times[-1] > limits.max_seconds:
        raise Rejected(f"is {times[-1]:.0f} s long; the limit is {limits.max_seconds:g} s", "media_too_large")
    fps = (len(times) - 1) / times[-1] if times[-1] else 0.0
    indices = sample(times, fps, sampling)
    size = _fit(*source, max_pixels, len(indices), limits)
    _check_total(len(indices), size, limits)

    def frames() -> Iterator[tuple[float, Image.Image]]:
        try:
            animation = WebPImageFile(io.BytesIO(data))
            for index in indices:
                animation.seek(index)
                yield times[index], _resized(to_rgb(animation.copy()), size)
        except (MemoryError, Rejected):
            raise
        except Exception:
            raise Rejected("cannot be decoded: the WebP file is truncated or damaged") from None

    return Picked(indices, size, source, fps, times[-1] + (1 / fps if fps else 0.0), len(times), frames())


def _from_pictures(
    files: Sequence[bytes | bytearray], sampling: Sampling, max_pixels: int | None, limits: VideoLimits
) -> Picked:
    fps = sampling.fps or 1.0
    indices = thin(len(files), sampling)
    times = even_times(len(files), fps)

    def picture(index: int) -> Image.Image:
        try:
            return decode_rgb(files[index], limits.max_pixels, limits.max_aspect_ratio)
        except Rejected as rejected:
            raise Rejected(f"has a frame, number {index}, that {rejected.reason}", rejected.code) from None

    first = picture(indices[0])
    source = (first.height, first.width)
    size = _fit(*source, max_pixels, len(indices), limits)
    _check_total(len(indices), size, limits)

    def frames() -> Iterator[tuple[float, Image.Image]]:
        yield times[indices[0]], _resized(first, size)
        for index in indices[1:]:
            yield times[index], _resized(picture(index), size)

    return Picked(indices, size, source, fps, len(files) / fps, len(files), frames())


def _fit(height: int, width: int, max_pixels: int | None, num_frames: int, limits: VideoLimits) -> tuple[int, int]:
    """Return the size of each of `num_frames` frames; see `picked_frames`."""
    if max_pixels is not None:
        max_pixels = max(min(max_pixels, limits.max_total_pixels // num_frames), 1)
    return fit(height, width, max_pixels)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BOX)
