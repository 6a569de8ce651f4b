"""Decode media in child processes that can be killed: what hangs or crashes there fails one item only."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from sensorium.errors import MediaError
from sensorium.media.channel import FRAME, FRAMES, PICTURE, PIXELS, SAMPLES, SECONDS, SOUND, VIDEO
from sensorium.media.check import Rejected
from sensorium.media.child_pool import ChildPool
from sensorium.media.child_process import ChildProcess, Lost
from sensorium.media.decoded import Audio, Video
from sensorium.media.raw import raw_picture, raw_sound, raw_video
from sensorium.media.sampling import Sampling
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, Modality

_KINDS: tuple[Modality, ...] = ("image", "video", "audio")
_NONSENSE = "gave an answer that is none"


class Decoder:
    """Decodes media, of each kind `num_children` items at a time. Safe to call from many threads.

    A child lives on between items. One that takes longer than its limit, crashes or runs out of memory is replaced;
    its item fails with a MediaError and no other item is touched. Pictures, videos and sounds have children of their
    own, so that a long video keeps no picture waiting.
    """

    def __init__(self, limits: MediaLimits, num_children: int = 1) -> None:
        self._limits = limits
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoder-start")
        self._pools = {kind: ChildPool(kind, limits, num_children, self._starter) for kind in _KINDS}
        self._lock = threading.Lock()

    def start(self, kinds: Sequence[str] = ("image",)) -> None:
        """Begin to start the children for `kinds` and return at once. Optional: the first item does it otherwise."""
        for kind in _KINDS:
            if kind in kinds:
                self._pools[kind].start()

    def decode_image(self, item: MediaItem) -> npt.NDArray[np.uint8]:
        """Return the picture as (height, width, 3) RGB, turned as its EXIF orientation says. Blocks.

        Raises:
            MediaError: it is not a picture we read, is over a limit, truncated, damaged, or killed its decoder.
        """
        with _named(item):
            if item.size is not None:
                return raw_picture(item, self._limits)
            return self._pools["image"].ask({}, [item.data], self._read_picture)

    def decode_video(self, item: MediaItem, sampling: Sampling, max_pixels: int | None = None) -> Video:
        """Return the frames that `sampling` takes of the video. Blocks.

        Args:
            sampling: see `media.options.video_sampling`, which makes it from what the request and the model say.
            max_pixels: of one frame; larger ones are shrunk in the child, by averaging, before they cost memory
                here, and further where all frames together would be over the server's limit. A processor that then
                resizes gives slightly other pixels than from full frames, the more so the closer this is to the
                processor's own size. None: the frames as they are, exactly what FFmpeg decodes.

        Raises:
            MediaError: it is not a video we read, is over a limit, truncated, damaged, or killed its decoder.
        """
        sampling = dataclasses.replace(sampling, max_frames=min(sampling.max_frames, self._limits.max_video_frames))
        with _named(item):
            if item.size is not None:
                return raw_video(item, sampling, self._limits)
            wanted = {"sampling": dataclasses.asdict(sampling), "max_pixels": max_pixels, "listed": bool(item.frames)}
            files = item.frames or [item.data]
            return self._pools["video"].ask(wanted, files, self._read_video(sampling.max_frames))

    def decode_audio(self, item: MediaItem, rate: int = 16_000, max_seconds: float | None = None) -> Audio:
        """Return the sound as mono samples at `rate`; of the item's `start` to its `end`. Blocks.

        Args:
            max_seconds: may only lower the server's limit. What is longer is an error, never cut.

        Raises:
            MediaError: it is not a sound we read, is over a limit, truncated, damaged, or killed its decoder.
        """
        longest = min(self._limits.max_audio_s, max_seconds or self._limits.max_audio_s)
        options, raw_rate = item.options, item.rate or rate if item.rate is not None else None
        wanted = {"rate": rate, "max_seconds": longest, "raw_rate": raw_rate, "start": options.start}
        with _named(item):
            if raw_rate == rate and options.start is None and options.end is None:
                return Audio(raw_sound(item, rate, longest), rate, rate)
            return self._pools["audio"].ask(
                {**wanted, "end": options.end}, [item.data], self._read_sound(rate, round(longest * rate) + rate)
            )

    def close(self) -> None:
        """End the children, each after the item it is at."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._starter.shutdown()

    def _read_picture(self, child: ChildProcess, kind: bytes) -> npt.NDArray[np.uint8]:
        height, width = PICTURE.unpack(_expected(child, kind, PIXELS, PICTURE.size))
        # A child that an item has taken over must not make this process allocate what it likes.
        if not 0 < height * width <= self._limits.max_pixels:
            raise Lost(_NONSENSE)
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        child.receive_into(pixels.reshape(-1).data)
        return pixels

    def _read_video(self, max_frames: int) -> Callable[[ChildProcess, bytes], Video]:
        def read(child: ChildProcess, kind: bytes) -> Video:
            count, height, width, total, *source, fps, duration = VIDEO.unpack(
                _expected(child, kind, FRAMES, VIDEO.size)
            )
            total_pixels = count * height * width
            if count > max_frames or not 0 < total_pixels <= self._limits.max_video_pixels:
                raise Lost(_NONSENSE)
            indices = np.frombuffer(child.receive(4 * count), dtype="<u4")
            frames = np.empty((count, height, width, 3), dtype=np.uint8)
            times: list[float] = []
            for frame in frames:
                times += SECONDS.unpack(_expected(child, child.kind_of_answer(), FRAME, SECONDS.size))
                child.receive_into(frame.reshape(-1).data)
            size = (int(source[0]), int(source[1]))
            return Video(frames, tuple(times), tuple(indices.tolist()), fps, duration, total, size)

        return read

    def _read_sound(self, rate: int, max_samples: int) -> Callable[[ChildProcess, bytes], Audio]:
        def read(child: ChildProcess, kind: bytes) -> Audio:
            count, source_rate = SOUND.unpack(_expected(child, kind, SAMPLES, SOUND.size))
            if not 0 < count <= max_samples:
                raise Lost(_NONSENSE)
            samples = np.empty(count, dtype="<f4")
            child.receive_into(samples.view(np.uint8).data)
            return Audio(samples, rate, source_rate)

        return read


def _expected(child: ChildProcess, kind: bytes, wanted: bytes, num_bytes: int) -> bytearray:
    if kind != wanted:
        raise Lost(_NONSENSE)
    return child.receive(num_bytes)


@contextmanager
def _named(item: MediaItem) -> Iterator[None]:
    """Let errors say which item they are about."""
    try:
        yield
    except Rejected as rejected:
        message = f"{item.where}: the {item.kind} {rejected.reason}."
        raise MediaError(message, param=item.where, code=rejected.code) from None
