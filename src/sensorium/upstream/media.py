"""Media items as parts of a message: always inline, so that nothing upstream ever opens an address of a client's."""

from __future__ import annotations

import base64
import io
from typing import Any

from sensorium.errors import InvalidRequest, MediaError
from sensorium.media.check import Rejected
from sensorium.media.clip_header import clip_format
from sensorium.media.header import image_format
from sensorium.types import MediaItem
from sensorium.upstream.dialect import Dialect

_IMAGES = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WebP": "image/webp", "BMP": "image/bmp"}
_CLIPS = {
    "MP4": "mp4",
    "Matroska or WebM": "webm",
    "FLV": "x-flv",
    "MPEG": "mpeg",
    "MPEG-TS": "mp2t",
    "AVI": "x-msvideo",
    "Ogg": "ogg",
    "WAV": "wav",
    "AIFF": "aiff",
    "FLAC": "flac",
    "MP3": "mpeg",
    "AAC": "aac",
    "AMR": "amr",
}
_OPTIONS = ("fps", "num_frames", "max_frames", "start", "end")
_INPUT_AUDIO = {"WAV": "wav", "MP3": "mp3"}  # what OpenAI's `input_audio` may be


def part_of(item: MediaItem, dialect: Dialect, engine: str) -> dict[str, Any]:
    """Return the part of a message that holds `item`.

    Raises:
        InvalidRequest: the server takes no such part, or not an option of it; `param` is the item's path.
    """
    if item.kind not in dialect.media:
        raise _refused(item, f"{item.kind} input", dialect, engine)
    options = {name: value for name in _OPTIONS if (value := getattr(item.options, name)) is not None}
    if options and not dialect.media_options:
        raise _refused(item, f"`{next(iter(options))}` of a media item", dialect, engine)
    if item.kind == "image":
        return {"type": "image_url", "image_url": {"url": image_url(item)}}
    if item.kind == "video":
        url = _video_url(item, dialect, engine)
        return {"type": "video_url", "video_url": {"url": url, **options}}
    data = _sound_file(item, dialect, engine)
    name = clip_format(data).name
    if dialect.sound == "audio_url":
        return {"type": "audio_url", "audio_url": {"url": data_url(f"audio/{_type(name)}", data), **options}}
    if name not in _INPUT_AUDIO:
        raise _refused(item, f"sound as {name} (WAV and MP3 are fine)", dialect, engine)
    encoded = base64.b64encode(data).decode()
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": _INPUT_AUDIO[name]}}


def image_url(item: MediaItem) -> str:
    """Return a picture as a data: URL; one that was decoded already becomes a PNG."""
    if item.size is not None:
        return data_url("image/png", _png(item.data, item.size))
    kind = image_format(item.data)
    if kind is None:
        raise MediaError(f"{item.where}: the image is in no format that is read here.", param=item.where)
    return data_url(_IMAGES[kind], item.data)


def data_url(kind: str, data: bytes) -> str:
    """Return `data` as a data: URL of the media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _video_url(item: MediaItem, dialect: Dialect, engine: str) -> str | list[str]:
    frames = item.frames
    if item.size is not None:
        if item.times and not dialect.media_options:
            raise _refused(item, "the times of a video's frames", dialect, engine)
        step = item.size[0] * item.size[1] * 3
        frames = tuple(_png(item.data[at : at + step], item.size) for at in range(0, len(item.data), step))
    if not frames:
        return data_url(f"video/{_type(_clip_name(item))}", item.data)
    if dialect.frames is None:
        raise _refused(item, "a video that is a list of pictures", dialect, engine)
    if dialect.frames == "joined":  # vllm/multimodal/media/video.py: every piece is a picture of whatever format
        return "data:video/jpeg;base64," + ",".join(base64.b64encode(frame).decode() for frame in frames)
    return [image_url(MediaItem("image", frame, item.where)) for frame in frames]


def _type(name: str) -> str:
    return _CLIPS.get(name, name.lower())


def _clip_name(item: MediaItem) -> str:
    try:
        return clip_format(item.data).name
    except Rejected as rejected:
        raise MediaError(f"{item.where}: the {item.kind} {rejected.reason}.", param=item.where) from None


def _sound_file(item: MediaItem, dialect: Dialect, engine: str) -> bytes:
    if item.rate is None:
        _clip_name(item)
        return item.data
    if item.rate == 0:
        raise _refused(item, "sound without a sampling rate", dialect, engine)
    import numpy as np
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.frombuffer(item.data, dtype="<f4"), item.rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def _png(pixels: bytes, size: tuple[int, int]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.frombytes("RGB", (size[1], size[0]), pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _refused(item: MediaItem, what: str, dialect: Dialect, engine: str) -> InvalidRequest:
    return InvalidRequest(
        f"{item.where}: {dialect.name}, which is the engine {engine} of this model, does not take {what}.",
        param=item.where,
        code="unsupported_by_engine",
    )
