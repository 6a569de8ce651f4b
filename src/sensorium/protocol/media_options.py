"""What may stand beside a media item's URL: which part of a clip is meant, and how many frames of it.

The options stand in the part or in its URL object, not in both. `mm_processor_kwargs` may hold those about frames for
all videos of a request; what stands beside an item wins over it, and `fps` and `num_frames` exclude each other at
either place. A null counts as absent. What applies to another kind of media, or only to a whole request, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import json_name
from sensorium.types import MediaOptions, Modality

# Wire name -> ours; the second column is vLLM's and ours, the others are qwen-vl-utils'.
_NAMES = {
    "fps": "fps",
    "num_frames": "num_frames",
    "nframes": "num_frames",
    "max_frames": "max_frames",
    "start": "start",
    "end": "end",
    "video_start": "start",
    "video_end": "end",
}
_FRAMES = ("fps", "num_frames", "max_frames")
_APPLY: dict[Modality, tuple[str, ...]] = {"image": (), "video": (*_FRAMES, "start", "end"), "audio": ("start", "end")}
_NOT_OF_ONE_ITEM = ("min_pixels", "max_pixels", "total_pixels", "min_frames", "resized_height", "resized_width")
_MOST: dict[str, float] = {"fps": 1000, "num_frames": 10_000, "max_frames": 10_000, "start": 1e6, "end": 1e6}


def media_options(kind: Modality, places: Sequence[tuple[Mapping[str, Any], str]]) -> MediaOptions:
    """Return the options of one item.

    Args:
        places: the objects in which they may stand, each with its path.

    Raises:
        InvalidRequest: `param` is the path of the option that is wrong.
    """
    found: dict[str, Any] = {}
    paths: dict[str, str] = {}
    for wire, path in places:
        for name, value in wire.items():
            if value is None:
                continue
            where = f"{path}.{name}"
            if name in _NOT_OF_ONE_ITEM:
                raise InvalidRequest(
                    f"`{where}` is not supported for one item; the request's `mm_processor_kwargs` take max_pixels "
                    "and max_frames.",
                    param=where,
                )
            option = _NAMES.get(name)
            if option is None:
                continue
            if option not in _APPLY[kind]:
                raise InvalidRequest(f"`{where}` does not apply to {kind} input; leave it out.", param=where)
            if option in found:
                raise InvalidRequest(f"`{where}` and `{paths[option]}` say the same; send one of them.", param=where)
            found[option], paths[option] = _number(option, value, where), where
    _check_exclusive(found, paths)
    start, end = found.get("start", 0.0), found.get("end", math.inf)
    if start >= end:
        where = paths["end"]
        raise InvalidRequest(f"`{where}` is {end:g}; it must be more than the start, {start:g}.", param=where)
    return MediaOptions(**found)


def check_video_kwargs(wire: dict[str, Any], path: str) -> dict[str, Any]:
    """Return `wire` with what it says about the frames of videos checked; other names are left to the model.

    Raises:
        InvalidRequest: `param` is the path of the option that is wrong.
    """
    found = {name: _number(name, wire[name], f"{path}.{name}") for name in _FRAMES if wire.get(name) is not None}
    _check_exclusive(found, {name: f"{path}.{name}" for name in found})
    return {**wire, **found}


def _check_exclusive(found: Mapping[str, Any], paths: Mapping[str, str]) -> None:
    if "fps" in found and "num_frames" in found:
        where = paths["num_frames"]
        raise InvalidRequest(f"`{paths['fps']}` and `{where}` exclude each other; send one of them.", param=where)


def _number(option: str, value: Any, where: str) -> int | float:
    whole = option in ("num_frames", "max_frames")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        kind = "a whole number" if whole else "a number"
        raise InvalidRequest(f"`{where}` must be {kind}, not {json_name(value)}.", param=where)
    # `not (a <= x <= b)` also catches NaN.
    least, most = (1 if whole else 0), _MOST[option]
    if not least <= value <= most or (option in ("fps", "end") and value == 0):
        above = "above" if option in ("fps", "end") else "at least"
        raise InvalidRequest(f"`{where}` is {value}; it must be {above} {least} and at most {most:g}.", param=where)
    return value if whole else float(value)
