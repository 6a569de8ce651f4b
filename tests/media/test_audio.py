"""What sounds give after decoding; all of it through the child, as in service."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soxr
from tests.clips import av_sound, patched, picture, sound, tone, video

from sensorium.errors import MediaError
from sensorium.media.decode import Decoder
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaOptions

WHERE = "messages[0].content[2].input_audio"


def item(data: bytes, rate: int | None = None, **options: float) -> MediaItem:
    return MediaItem("audio", data, WHERE, options=MediaOptions(**options), rate=rate)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(MediaLimits())
    yield decoder
    decoder.close()


def refused(decoder: Decoder, given: MediaItem | bytes, **options: Any) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decoder.decode_audio(item(given) if isinstance(given, bytes) else given, **options)
    assert caught.value.param == WHERE
    assert caught.value.message.startswith(f"{WHERE}: the audio ")
    return caught.value


def pitch(samples: npt.NDArray[np.float32], rate: int = 16_000) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("WAV", "ULAW"),
        ("AIFF", None),
        ("FLAC", None),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
    ],
)
def test_formats_of_libsndfile(decoder: Decoder, kind: str, subtype: str | None) -> None:
    found = decoder.decode_audio(item(sound(tone(), 16_000, kind, subtype)))
    assert found.samples.dtype == np.float32
    assert found.samples.ndim == 1
    assert found.rate == 16_000
    assert len(found.samples) == pytest.approx(16_000, abs=1800 if kind in ("MP3", "OGG") else 0)
    assert pitch(found.samples) == pytest.approx(440, abs=2)
    assert np.abs(found.samples[2_000:-2_000]).max() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "aac"),
        ("adts", "aac"),
        ("mp3", "libmp3lame"),
        ("webm", "libopus"),
        ("ogg", "libopus"),
        ("mpegts", "aac"),
    ],
)
def test_formats_of_ffmpeg(decoder: Decoder, container: str, codec: str) -> None:
    found = decoder.decode_audio(item(av_sound(tone(rate=48_000), container, codec)))
    assert found.source_rate == 48_000
    assert len(found.samples) == pytest.approx(16_000, abs=1000)
    assert pitch(found.samples) == pytest.approx(440, abs=2)


def test_samples_are_exact_where_nothing_has_to_be_changed(decoder: Decoder) -> None:
    samples = tone()
    assert (decoder.decode_audio(item(sound(samples, subtype="FLOAT"))).samples == samples).all()
    whole = np.round(samples * 32768).astype(np.int16)
    assert (decoder.decode_audio(item(sound(whole))).samples == whole / np.float32(32768)).all()
    assert (decoder.decode_audio(item(sound(whole, kind="FLAC"))).samples == whole / np.float32(32768)).all()


def test_channels_are_averaged_and_the_rate_is_changed_as_librosa_does(decoder: Decoder) -> None:
    stereo = np.stack([tone(rate=44_100), tone(rate=44_100, hertz=1000)], axis=1)
    found = decoder.decode_audio(item(sound(stereo, 44_100, subtype="FLOAT")))
    wanted = soxr.resample(stereo.mean(axis=1), 44_100, 16_000, "HQ")
    assert found.source_rate == 44_100
    assert len(found.samples) == len(wanted)
    assert np.abs(found.samples - wanted).max() < 1e-5
    assert len(decoder.decode_audio(item(sound(stereo, 44_100)), rate=24_000).samples) == 24_000


def test_a_part_of_it(decoder: Decoder) -> None:
    ramp = np.linspace(0, 0.9, 32_000, dtype=np.float32)
    data = sound(ramp, subtype="FLOAT")
    assert (decoder.decode_audio(item(data, start=0.5, end=1.25)).samples == ramp[8_000:20_000]).all()
    assert (decoder.decode_audio(item(data, start=1.5)).samples == ramp[24_000:]).all()
    assert (decoder.decode_audio(item(data, end=0.1)).samples == ramp[:1_600]).all()
    assert "has no sound between 2 s and its end, at 2.00 s" in refused(decoder, item(data, start=2.0)).message


def test_raw_samples(decoder: Decoder) -> None:
    samples = tone(0.5)
    for rate in (0, 16_000):
        assert (decoder.decode_audio(item(samples.tobytes(), rate)).samples == samples).all()
    assert len(decoder.decode_audio(item(samples.tobytes(), 8_000)).samples) == 16_000
    assert (decoder.decode_audio(item(samples.tobytes(), 0, start=0.25)).samples == samples[4_000:]).all()
    assert "no number of float32" in refused(decoder, item(b"123", 0)).message
    assert "limit is 0.2 s" in refused(decoder, item(samples.tobytes(), 0), max_seconds=0.2).message
    assert "not finite" in refused(decoder, item(np.full(9, np.nan, np.float32).tobytes(), 0)).message


@pytest.mark.parametrize("seconds", [1.0, 1.001])
def test_longer_than_the_limit_is_an_error_and_never_cut(decoder: Decoder, seconds: float) -> None:
    data = sound(tone(seconds))
    if seconds == 1.0:
        assert len(decoder.decode_audio(item(data), max_seconds=1.0).samples) == 16_000
    else:
        error = refused(decoder, data, max_seconds=1.0)
        assert (error.code, "--max-audio-seconds" in error.message) == ("media_too_large", True)


def test_silence_that_packs_well_costs_no_memory(decoder: Decoder) -> None:
    bomb = sound(np.zeros((48_000 * 60, 2), np.int16), 48_000, "FLAC")
    assert len(bomb) < 20_000
    small = Decoder(MediaLimits(max_audio_s=30.0, decode_memory_bytes=48 << 20))
    began = peak_bytes()
    assert "is longer than 30 s" in refused(small, bomb).message
    assert peak_bytes() - began < 8 << 20
    small.close()


def peak_bytes() -> int:
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024


def test_sizes_that_recorders_leave_open_and_sizes_that_lie(decoder: Decoder) -> None:
    data = sound(tone())
    at = data.index(b"data") + 4
    for unknown in (0xFFFFFFFF, 0x7FFFFFFF):
        streamed = data[:at] + struct.pack("<I", unknown) + data[at + 4 :]
        assert len(decoder.decode_audio(item(streamed)).samples) == 16_000
    assert "is truncated: its header promises 10000 more bytes" in refused(decoder, data[:-10_000]).message
    flac = sound(np.random.default_rng(0).integers(-9999, 9999, 16_000).astype(np.int16), kind="FLAC")
    assert re.search("truncated|damaged", refused(decoder, flac[: len(flac) // 2]).message)
    m4a = av_sound(tone(4, 48_000), "mov", "aac")
    assert "truncated or damaged" in refused(decoder, m4a[: len(m4a) // 2]).message


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (24, struct.pack("<I", 0), "sampling rate|damaged"),
        (24, struct.pack("<I", 1), "sampling rate of 1 Hz"),
        (24, struct.pack("<I", 0x7FFFFFFF), "sampling rate of 2147483647 Hz"),
        (22, struct.pack("<H", 255), "255 channels|damaged"),
        (22, struct.pack("<H", 0), "channels|damaged"),
    ],
)
def test_nonsense_in_a_header(decoder: Decoder, offset: int, value: bytes, words: str) -> None:
    data = sound(tone())
    assert re.search(words, refused(decoder, data[:offset] + value + data[offset + len(value) :]).message)


def test_what_is_no_sound(decoder: Decoder) -> None:
    assert "without an audio stream" in refused(decoder, video(4)).message
    assert "is a PNG picture; send it as image_url" in refused(decoder, picture(1)).message
    assert "no format read here" in refused(decoder, b"v=0\r\nm=audio 5004 RTP/AVP 0\r\n").message
    assert "is empty" in refused(decoder, b"").message
    assert "no sound" in refused(decoder, sound(np.zeros(0, np.int16))).message
    assert "not finite" in refused(decoder, sound(np.full(100, np.nan, np.float32), subtype="FLOAT")).message
    assert re.search("damaged|no sound", refused(decoder, b"\xff\xfb\x90\x00" + bytes(2000)).message)
    late = patched(av_sound(tone(rate=48_000), "mov", "aac"), b"mdhd", 16, struct.pack(">I", 36_000 * 48_000))
    assert len(decoder.decode_audio(item(late)).samples) == pytest.approx(16_000, abs=1000)


def test_a_sound_of_which_no_sample_is_left_at_the_wanted_rate(decoder: Decoder) -> None:
    assert "is too short" in refused(decoder, sound(np.zeros(1, np.float32), 48_000)).message
