"""Small videos and sounds whose frames say their own number, made with the encoders that come with the decoders."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

WIDTH, HEIGHT = 64, 48
X264 = {"preset": "ultrafast", "bf": "2", "b-adapt": "0", "x264-params": "scenecut=0:keyint=12:open-gop=0"}


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    """Return a frame of 8 upright bars, white where the number's bit is 1."""
    bits = np.array([255 if number >> bit & 1 else 0 for bit in range(8)], np.uint8)
    return np.broadcast_to(np.repeat(bits, width // 8)[None, :, None], (height, width, 3)).copy()


def number_of(frame: npt.NDArray[np.uint8]) -> int:
    """Read the number of a frame back."""
    bars = frame.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1)
    return sum(1 << bit for bit in range(8) if bars[bit] > 127)


def video(
    count: int = 40,
    container: str = "mp4",
    codec: str = "libx264",
    *,
    rate: int = 10,
    pts: Sequence[int] | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    header_first: bool = False,
) -> bytes:
    """Return an encoded video; `pts` are in units of 1 / rate seconds. `header_first` is for MP4."""
    if header_first:  # FFmpeg moves the header by reading its own file again, so there has to be one
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            _write(file.name, count, container, codec, rate, pts, pixels, options, size, {"movflags": "faststart"})
            return Path(file.name).read_bytes()
    buffer = io.BytesIO()
    _write(buffer, count, container, codec, rate, pts, pixels, options, size, {})
    return buffer.getvalue()


def _write(
    target: Any,
    count: int,
    container: str,
    codec: str,
    rate: int,
    pts: Sequence[int] | None,
    pixels: str,
    options: dict[str, str] | None,
    size: tuple[int, int],
    muxing: dict[str, str],
) -> None:
    with av.open(target, "w", format=container, options=muxing) as output:
        stream: Any = output.add_stream(codec, rate=rate, options=X264 if options is None else options)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.thread_count = 1
        if pts is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts = number if pts is None else pts[number]
            frame.time_base = Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def tone(seconds: float = 1.0, rate: int = 16_000, hertz: float = 440.0) -> npt.NDArray[np.float32]:
    """Return a sine wave."""
    return (0.5 * np.sin(np.arange(round(seconds * rate)) * (2 * np.pi * hertz / rate))).astype(np.float32)


def sound(samples: npt.NDArray[Any], rate: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Return `samples` as a file, written by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def av_sound(samples: npt.NDArray[np.float32], container: str, codec: str, rate: int = 48_000) -> bytes:
    """Return `samples` as a file, written by FFmpeg."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 0)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def picture(number: int, kind: str = "PNG", width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """Return a numbered frame as a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(numbered(number, width, height)).save(buffer, kind)
    return buffer.getvalue()


def patched(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """Return an MP4 with bytes of every box of one name overwritten; `offset` counts from behind the name."""
    changed, at = bytearray(data), 0
    while (at := changed.find(box, at)) >= 0:
        at += 4
        changed[at + offset : at + offset + len(value)] = value
    assert changed != data
    return bytes(changed)
