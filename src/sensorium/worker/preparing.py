"""From media items to what the encoder takes: decoded by their kind, unless the encoder output is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.errors import InvalidRequest, MediaError
from sensorium.families.family import AudioProcessor, EncoderInput, Frames, Layout, Processor, VideoProcessor
from sensorium.media.decode import Decoder
from sensorium.media.decoded import Video
from sensorium.media.key import media_key
from sensorium.media.options import VIDEO_KWARGS, video_sampling
from sensorium.media.sampling import Sampling
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaUse

Options = Mapping[str, Mapping[str, Any]]  # by kind of media
_MOST_KNOWN = 1 << 19  # tokens of all layouts that are remembered: some 36 bytes each, of videos tens of thousands


class Prepared(NamedTuple):
    """A media item: its key, its layout, what the encoder reads (None: its output is cached), what to tell of it."""

    key: bytes
    layout: Layout
    input: EncoderInput | None
    use: MediaUse


class MediaPreparer:
    """Prepares media items; called from several threads at once.

    An item's key is a hash of its bytes as they came and of how it is wanted, so an item whose encoder output is
    cached is not even decoded.

    Args:
        processors: by kind; those of videos and sounds are `VideoProcessor` and `AudioProcessor`.
        options: the server's, for all processors.
    """

    def __init__(
        self,
        processors: Mapping[str, Processor],
        decoder: Decoder | None,
        cache: EncoderCache,
        options: Mapping[str, Any],
        limits: MediaLimits,
    ) -> None:
        self._processors, self._decoder, self._cache, self._media_limits = processors, decoder, cache, limits
        self._frames = {name: options[name] for name in VIDEO_KWARGS if options.get(name) is not None}
        self._options = {name: value for name, value in options.items() if name not in VIDEO_KWARGS}
        self.limits = {kind: processor.limits(self._options) for kind, processor in processors.items()}
        self._known: dict[bytes, tuple[Layout, MediaUse]] = {}  # by media key
        self._known_tokens = 0  # of these layouts, and as if they had 64 more each
        self.num_decoded = 0
        self.num_reused = 0

    def bounds(self) -> dict[str, dict[str, float]]:
        """Return, by kind, what larger items are reduced to, and of sounds `max_seconds`: longer ones are refused."""
        found: dict[str, dict[str, float]] = {}
        for kind, processor in self._processors.items():
            of_kind: dict[str, float] = {n: most for n, most in self.limits[kind].items() if n.startswith("max_")}
            if kind == "video":
                most = cast(VideoProcessor, processor).sampling.max_frames
                of_kind["max_frames"] = min(most, self._media_limits.max_video_frames)
            if kind == "audio":
                of_kind["max_seconds"] = cast(AudioProcessor, processor).max_seconds
            found[kind] = of_kind
        return found

    def merged(self, wanted: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return, by kind, the server's processor options, lowered by the request's.

        Raises:
            InvalidRequest: the model does not take an option, or not this value.
        """
        known = dict.fromkeys(name for limits in self.limits.values() for name in limits)
        known |= dict.fromkeys(VIDEO_KWARGS) if "video" in self._processors else {}
        for name, value in wanted.items():
            param = f"mm_processor_kwargs.{name}"
            if name not in known:
                takes = " and ".join(known) or "none"
                raise InvalidRequest(f"{param} is not known; this model takes {takes}.", param=param)
            # Those about frames were checked where the request was read.
            whole = name in VIDEO_KWARGS or (isinstance(value, int) and not isinstance(value, bool) and value > 0)
            if value is not None and not whole:
                unit = " of pixels" if name.endswith("_pixels") else ""
                raise InvalidRequest(f"{param} is {value!r}; it must be a positive whole number{unit}.", param=param)
        return {
            kind: self._options
            | {name: min(wanted[name], most) for name, most in limits.items() if wanted.get(name) is not None}
            for kind, limits in self.limits.items()
        }

    def prepare_all(
        self, items: Sequence[MediaItem], salt: str, options: Options, wanted: Mapping[str, Any], force_decode: bool
    ) -> list[Prepared]:
        """Return the items of one request, each as `prepare` does; one that is there twice is decoded once."""
        prepared: dict[bytes, Prepared] = {}
        return [self.prepare(item, salt, options, wanted, force_decode, prepared) for item in items]

    def prepare(
        self,
        item: MediaItem,
        salt: str,
        options: Options,
        wanted: Mapping[str, Any],
        force_decode: bool,
        at_hand: dict[bytes, Prepared] | None = None,
    ) -> Prepared:
        """Return the item as the engine wants it; without its input where the encoder output is cached.

        Args:
            options: what `merged` made of `wanted`, the request's.
            at_hand: what the request holds already, by key; the item is added.

        Raises:
            MediaError: the item cannot be used; `param` is its path.
        """
        processor = self._processors.get(item.kind)
        if processor is None:
            raise MediaError(f"{item.where}: this model does not take {item.kind} input.", param=item.where)
        sampling = None
        if item.kind == "video":
            defaults = cast(VideoProcessor, processor).sampling
            sampling = video_sampling(item, defaults, self._media_limits, self._frames, wanted)
        key = media_key(item, salt, processor.fingerprint(), options[item.kind], sampling)
        if at_hand is not None and (twin := at_hand.get(key)) is not None:
            self.num_reused += 1
            return twin._replace(use=msgspec.structs.replace(twin.use, where=item.where))
        prepared = self._new(key, item, processor, options[item.kind], sampling, force_decode)
        if at_hand is not None:
            at_hand[key] = prepared
        return prepared

    def _new(
        self,
        key: bytes,
        item: MediaItem,
        processor: Processor,
        options: Mapping[str, Any],
        sampling: Sampling | None,
        force_decode: bool,
    ) -> Prepared:
        known = self._known.get(key)
        if known is not None and key in self._cache and not force_decode:
            self.num_reused += 1
            layout, use = known
            return Prepared(key, layout, None, msgspec.structs.replace(use, where=item.where))
        content, use = self._decode(item, processor, options, sampling)
        try:
            encoder_input = processor(content, options)
        except ValueError as error:
            raise MediaError(f"{item.where}: {error}", param=item.where) from None
        self.num_decoded += 1
        layout = encoder_input.layout
        self._known_tokens += len(layout.token_ids) + 64
        if self._known_tokens > _MOST_KNOWN:
            self._known.clear()  # only a shortcut: what is not known is decoded again
            self._known_tokens = len(layout.token_ids) + 64
        use = msgspec.structs.replace(use, resized=layout.size)
        self._known[key] = layout, use
        return Prepared(key, layout, encoder_input, use)

    def _decode(
        self, item: MediaItem, processor: Processor, options: Mapping[str, Any], sampling: Sampling | None
    ) -> tuple[Any, MediaUse]:
        """From bytes to what `Processor.__call__` takes for this kind, and what there is to tell of it."""
        if self._decoder is None:
            raise MediaError(f"{item.where}: {item.kind} input cannot be decoded here.", param=item.where)
        if item.kind == "image":
            picture = self._decoder.decode_image(item)  # (height, width, 3) uint8
            return picture, MediaUse("image", item.where, size=(picture.shape[0], picture.shape[1]))
        if sampling is not None:
            wanted = cast(VideoProcessor, processor)
            video = self._decoder.decode_video(item, sampling, wanted.frame_pixels(options))
            use = MediaUse("video", item.where, size=video.source_size, timestamps=video.times_s)
            return _frames(video), use
        sound = cast(AudioProcessor, processor)
        # The processor itself refuses what is too long for the model: the decoder would name the server's limit.
        audio = self._decoder.decode_audio(item, sound.rate)
        use = MediaUse("audio", item.where, seconds=len(audio.samples) / audio.rate)
        return audio.samples, use  # (num_samples,) float32


def _frames(video: Video) -> Frames:
    """The frames, and how many there are to a second of the part they lie in, first and last included."""
    length = video.indices[-1] - video.indices[0] + 1
    return Frames(video.frames, video.times_s, len(video.indices) / length * video.source_fps)
