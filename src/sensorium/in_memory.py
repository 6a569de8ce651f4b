"""Media that a program has in memory already -> media items. The forms are those of vLLM's `multi_modal_data`.

image: a PIL image, or an (h, w, 3) uint8 array.
video: an (n, h, w, 3) uint8 array, or a list of n images; or such a thing and a dict of metadata, as a tuple. Of the
       metadata `fps` counts, and `frames_indices`, which says what the frames' numbers were at that rate.
audio: samples, or (samples, sampling rate). Samples are a one-dimensional array, or (channels, n), of floats or int16;
       without a rate they have the one the model wants.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from sensorium.errors import InvalidRequest
from sensorium.media.image import to_rgb
from sensorium.types import MediaItem, Modality

_MAX_CHANNELS = 32


def to_items(kind: str, value: Any, where: str) -> list[MediaItem]:
    """Return the items of one kind: `value` is one of them or a list.

    Raises:
        InvalidRequest: one has none of the forms above; `param` is its path.
    """
    modality = cast("Modality", kind)
    items = value if isinstance(value, list) else [value]
    if kind == "image" and isinstance(value, tuple):
        items = list(value)
    if kind == "video" and isinstance(value, list) and value and all(_is_picture(one) for one in value):
        items = [value]  # the frames of one video
    return [to_item(modality, item, f"{where}[{number}]") for number, item in enumerate(items)]


def to_item(kind: Modality, value: Any, where: str) -> MediaItem:
    """Return one item.

    Raises:
        InvalidRequest: it has none of the forms above.
    """
    return {"image": _image, "video": _video, "audio": _audio}[kind](value, where)


def _image(value: Any, where: str) -> MediaItem:
    pixels = _pixels(value, where)
    return MediaItem("image", pixels.tobytes(), where, (pixels.shape[0], pixels.shape[1]))


def _pixels(image: Any, where: str) -> npt.NDArray[np.uint8]:
    """(height, width, 3) RGB, turned the way EXIF data say; the same as of the picture's file."""
    if isinstance(image, Image.Image):
        try:
            image = np.asarray(to_rgb(ImageOps.exif_transpose(image)))
        except (OSError, SyntaxError, ValueError):
            raise InvalidRequest(f"The picture at {where} cannot be decoded.", param=where) from None
    if not _is_rgb(image, 3):
        raise InvalidRequest(f"{where} is {_what(image)}; give a PIL image or an (h, w, 3) uint8 array.", param=where)
    return cast("npt.NDArray[np.uint8]", image)


def _video(value: Any, where: str) -> MediaItem:
    metadata: Mapping[str, Any] = {}
    if isinstance(value, tuple) and len(value) == 2 and (value[1] is None or isinstance(value[1], Mapping)):
        value, metadata = value[0], value[1] or {}
    if isinstance(value, Sequence) and len(value) and all(_is_picture(one) for one in value):
        frames = [_pixels(frame, f"{where}[{number}]") for number, frame in enumerate(value)]
        other = next((number for number, frame in enumerate(frames) if frame.shape != frames[0].shape), None)
        if other is not None:
            raise InvalidRequest(
                f"{where}: frame {other} has the shape {frames[other].shape} and the first {frames[0].shape}; "
                "all must have the same.",
                param=where,
            )
        value = np.stack(frames)
    if not _is_rgb(value, 4) or not value.size:
        raise InvalidRequest(
            f"{where} is {_what(value)}; give an (n, h, w, 3) uint8 array or a list of images. A file goes into a "
            "message, as {'type': 'video_url', 'video_url': {'url': 'file:///...'}}.",
            param=where,
        )
    return MediaItem(
        "video", value.tobytes(), where, (value.shape[1], value.shape[2]), times=_times(metadata, len(value), where)
    )


def _times(metadata: Mapping[str, Any], count: int, where: str) -> tuple[float, ...]:
    fps, indices = metadata.get("fps"), metadata.get("frames_indices")
    if fps is None:
        return ()
    try:
        indices = list(range(count)) if indices is None else [int(index) for index in indices]
        wrong = len(indices) != count or not 0 < float(fps) < math.inf
    except (TypeError, ValueError):
        raise InvalidRequest(
            f"{where}: the metadata's fps must be a number, and frames_indices whole numbers.", param=where
        ) from None
    if wrong:
        raise InvalidRequest(
            f"{where}: the metadata has fps {fps} and {len(indices)} frames_indices for {count} frames.", param=where
        )
    fps = float(fps)
    return tuple(float((index - indices[0]) / fps) for index in indices)


def _audio(value: Any, where: str) -> MediaItem:
    samples, rate = value if isinstance(value, tuple) and len(value) == 2 else (value, 0)
    if not isinstance(samples, np.ndarray) or (samples.dtype.kind != "f" and samples.dtype != np.int16):
        raise InvalidRequest(f"{where} is {_what(samples)}; give an array of floats or int16.", param=where)
    if samples.dtype == np.int16:
        samples = samples / np.float32(1 << 15)
    if samples.ndim == 2 and samples.shape[0] <= _MAX_CHANNELS:
        samples = samples.mean(axis=0)
    if samples.ndim != 1 or not samples.size:
        raise InvalidRequest(f"{where} is {_what(samples)}; its shape must be (n,) or (channels, n).", param=where)
    known = isinstance(rate, numbers.Real) and not isinstance(rate, bool) and math.isfinite(rate)
    if not known or not rate == int(rate) >= 0:
        raise InvalidRequest(f"{where} has the sampling rate {rate}; give a whole number of Hz.", param=where)
    return MediaItem("audio", samples.astype("<f4").tobytes(), where, rate=int(rate))


def _is_picture(value: Any) -> bool:
    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and value.ndim == 3)


def _is_rgb(value: Any, num_dimensions: int) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == num_dimensions
        and value.shape[-1] == 3
    )


def _what(value: Any) -> str:
    return (
        f"an array of shape {value.shape} and type {value.dtype}"
        if isinstance(value, np.ndarray)
        else f"{type(value).__name__}"
    )
