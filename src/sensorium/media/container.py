"""Open a video or sound file with FFmpeg, reduced to what is served. Runs in a decoding child.

The demuxer is named, never guessed; decoders come from a list; nothing but the bytes given is read, and the process
could not open a file or a socket if FFmpeg wanted to (see `child`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import av
import av.logging
import av.subtitles.stream  # PyAV imports it at the first file; here files can still be opened
from av.container import InputContainer

from sensorium.media.check import Rejected

VIDEO_CODECS = frozenset(
    {
        *("h264", "hevc", "av1", "libdav1d", "vp8", "libvpx", "vp9", "libvpx-vp9", "theora", "prores", "mjpeg", "gif"),
        *("mpeg4", "msmpeg4v3", "mpeg1video", "mpeg2video", "h263", "flv", "wmv2"),
    }
)
AUDIO_CODECS = frozenset(
    {
        *("mp3", "mp3float", "mp2", "mp2float", "aac", "aac_latm", "ac3", "eac3", "flac", "alac"),
        *("opus", "libopus", "vorbis", "libvorbis", "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb"),
        *("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_alaw", "pcm_mulaw"),
        *("adpcm_ms", "adpcm_ima_wav"),
    }
)
# Of these, the header's duration is exact enough to tell that the end is missing.
_EXACT = ("mov", "matroska", "avi", "flv")
_MAX_STREAMS = 32
_MAX_PACKETS = 2_000_000

av.logging.set_libav_level(av.logging.PANIC)


@contextmanager
def opened(data: bytes | bytearray, demuxer: str) -> Iterator[InputContainer]:
    """Open `data` as what it was found to be.

    Raises:
        Rejected: it cannot be read as that.
    """
    options = {
        "format_whitelist": demuxer if demuxer != "mov" else "mov,mp4,m4a,3gp,3g2,mj2",
        "protocol_whitelist": "none",
        "codec_whitelist": ",".join(sorted(VIDEO_CODECS | AUDIO_CODECS)),
        "max_streams": str(_MAX_STREAMS),
    }
    if demuxer == "matroska":
        options["format_whitelist"] = "matroska,webm"
    try:
        container = cast(
            "InputContainer", av.open(io.BytesIO(data), format=demuxer, options=options, metadata_errors="replace")
        )
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError):
        raise Rejected("cannot be opened: it is truncated or damaged") from None
    with container:
        yield container


def codec_of(stream: Any, allowed: frozenset[str]) -> str:
    """Return the name of a stream's decoder.

    Raises:
        Rejected: it is not one that is served.
    """
    context = stream.codec_context
    name = context.name if context is not None else "of an unknown kind"
    if name not in allowed:
        raise Rejected(f"is coded as {name}, which is not decoded here; H.264 and AAC in MP4 are")
    return str(name)


def packets(container: InputContainer) -> Iterator[Any]:
    """Yield the packets of all streams; what comes after damage is left out.

    Raises:
        Rejected: there are too many.
    """
    count = 0
    try:
        for packet in container.demux():
            if packet.size:
                count += 1
                if count > _MAX_PACKETS:
                    raise Rejected(f"has more than {_MAX_PACKETS:,} packets; send a shorter part", "media_too_large")
                yield packet
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def check_whole(container: InputContainer, demuxer: str, end_s: float) -> None:
    """Refuse a file that stops earlier than its header says.

    Args:
        end_s: when the last packet of any stream ends.

    Raises:
        Rejected: with both numbers.
    """
    promised = (container.duration or 0) / av.time_base
    if demuxer in _EXACT and promised > end_s + max(1.0, 0.05 * promised):
        raise Rejected(f"is truncated or damaged: its header promises {promised:.1f} s and {end_s:.1f} s are there")
