"""From an encoded sound to mono samples at the rate a model wants. Runs in a decoding child: the input is hostile.

Lossless files (WAV, FLAC, AIFF) are read by libsndfile, the others by FFmpeg. Channels are averaged, and the rate is
changed by soxr at its "HQ" setting, as librosa does for the families' own scripts.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from sensorium.media.check import Rejected
from sensorium.media.clip_header import ClipFormat, clip_format, missing_wav_bytes
from sensorium.media.container import AUDIO_CODECS, check_whole, codec_of, opened

Samples = npt.NDArray[np.float32]
Chunks = Iterator[Samples]

_BLOCK = 1 << 16  # samples decoded at once
_RATES = range(2_000, 768_001)
_MAX_CHANNELS = 32


@dataclass(frozen=True)
class Wanted:
    """`start` and `end` in seconds; `max_seconds` is of what lies between them, in the source's time."""

    rate: int
    max_seconds: float
    start: float | None = None
    end: float | None = None


def decode_sound(data: bytes | bytearray, raw_rate: int | None, wanted: Wanted) -> tuple[Samples, int]:
    """Return (num_samples,) float32 at `wanted.rate`, and the source's sampling rate.

    Args:
        raw_rate: where given, `data` is not a file but mono float32 samples at this rate.

    Raises:
        Rejected: unknown, damaged, truncated, without sound, or longer than allowed.
        MemoryError: decoding needs more than the process may have.
    """
    if raw_rate is not None:
        return _collect(_blocks(np.frombuffer(data, dtype="<f4")), _checked_rate(raw_rate), wanted), raw_rate
    found = clip_format(data)
    try:
        if not found.demuxer:
            return _from_soundfile(data, found, wanted)
        with opened(data, found.demuxer) as container:
            return _from_container(container, found, wanted)
    except (soundfile.SoundFileError, RuntimeError):
        raise Rejected(f"cannot be decoded: the {found.name} file is damaged") from None


def _from_soundfile(data: bytes | bytearray, found: ClipFormat, wanted: Wanted) -> tuple[Samples, int]:
    if found.name not in ("WAV", "FLAC", "AIFF"):
        raise Rejected(f"is a {found.name} file, which has no sound")
    if missing := missing_wav_bytes(data):
        raise Rejected(f"is truncated: its header promises {missing} more bytes of samples than are there")
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        rate = _checked_rate(file.samplerate)
        _check_channels(file.channels)
        read = 0

        def chunks() -> Chunks:
            nonlocal read
            while len(block := file.read(_BLOCK // file.channels, dtype="float32", always_2d=True)):
                read += len(block)
                yield block.mean(axis=1)
            if found.name == "FLAC" and read < file.frames < 1 << 40:  # 1 << 40: the length is not known
                raise Rejected(f"is truncated or damaged: {read} of its {file.frames} samples can be decoded")

        return _collect(chunks(), rate, wanted), rate


def _from_container(container: Any, found: ClipFormat, wanted: Wanted) -> tuple[Samples, int]:
    if not container.streams.audio:
        raise Rejected(f"is a {found.name} file without an audio stream")
    stream = container.streams.audio[0]
    codec_of(stream, AUDIO_CODECS)
    rate = _checked_rate(stream.codec_context.sample_rate)
    _check_channels(stream.codec_context.channels)
    end_s = 0.0

    def chunks() -> Chunks:
        nonlocal end_s
        for packet in _packets(container):
            if packet.pts is not None:
                ticks = packet.pts - (packet.stream.start_time or 0) + (packet.duration or 0)
                end_s = max(end_s, ticks * packet.time_base.numerator / packet.time_base.denominator)
            if packet.stream_index == stream.index:
                for frame in _decoded(packet):
                    if frame.sample_rate != rate:
                        raise Rejected(f"changes its sampling rate from {rate} to {frame.sample_rate} Hz")
                    yield _mono(frame)
        check_whole(container, found.demuxer, end_s)

    return _collect(chunks(), rate, wanted), rate


def _packets(container: Any) -> Iterator[Any]:
    """Packets of all streams, and the empty ones that make decoders give what they hold back."""
    try:
        yield from container.demux()
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def _decoded(packet: Any) -> list[Any]:
    try:
        return list(packet.decode())
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError):  # one damaged packet, such as a tag in the middle of an MP3
        return []


def _mono(frame: Any) -> Samples:
    _check_channels(channels := frame.layout.nb_channels)
    block = frame.to_ndarray()
    if not frame.format.is_planar:
        block = block.reshape(-1, channels).T  # (channels, num_samples)
    if block.dtype == np.uint8:
        block = (block.astype(np.float32) - 128) / 128
    elif block.dtype.kind == "i":
        block = block.astype(np.float32) / -float(np.iinfo(block.dtype).min)
    mixed: Samples = block.mean(axis=0, dtype=np.float32)
    return mixed


def _collect(chunks: Chunks, rate: int, wanted: Wanted) -> Samples:
    """Cut to [start, end], resample, and count: the limit is met while decoding, whatever a header says."""
    first = round((wanted.start or 0.0) * rate)
    last = None if wanted.end is None else round(wanted.end * rate)
    most = int(wanted.max_seconds * rate)
    stream = soxr.ResampleStream(rate, wanted.rate, 1, dtype="float32", quality="HQ") if rate != wanted.rate else None
    parts: list[Samples] = []
    at = taken = 0
    for chunk in chunks:
        part = chunk[max(first - at, 0) : None if last is None else max(last - at, 0)]
        at += len(chunk)
        taken += len(part)
        if taken > most:
            raise Rejected(
                f"is longer than {wanted.max_seconds:g} s, the limit; send a shorter one, choose a part of it with "
                "`start` and `end`, or raise --max-audio-seconds",
                "media_too_large",
            )
        if len(part) and not np.isfinite(part).all():
            raise Rejected("holds samples that are not finite numbers")
        if len(part):
            parts.append(stream.resample_chunk(part) if stream else part)
        if last is not None and at >= last:
            break
    if not taken:
        raise Rejected(f"has no sound between {wanted.start or 0:g} s and its end, at {at / rate:.2f} s")
    if stream:
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts)
    if not len(samples):
        raise Rejected(f"is too short: {taken} samples at {rate} Hz leave none at {wanted.rate} Hz")
    return np.ascontiguousarray(samples, dtype=np.float32)


def _blocks(samples: Samples) -> Chunks:
    for at in range(0, len(samples), _BLOCK):
        yield samples[at : at + _BLOCK]


def _checked_rate(rate: int) -> int:
    if rate not in _RATES:
        raise Rejected(f"has a sampling rate of {rate} Hz; it must lie between {_RATES[0]} and {_RATES[-1]}")
    return rate


def _check_channels(channels: int) -> None:
    if not 1 <= channels <= _MAX_CHANNELS:
        raise Rejected(f"has {channels} channels; it must have 1 to {_MAX_CHANNELS}")
