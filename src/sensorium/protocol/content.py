"""Wire messages -> Message values and the media they point at. OpenAI's form; tags in text are a dialect's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pydantic
from pydantic import ConfigDict, WithJsonSchema

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import check_plain, json_name
from sensorium.protocol.draft import Draft, Written, numbered
from sensorium.protocol.media_options import media_options
from sensorium.types import MediaSource, Message, Modality

# The role is written into the prompt by the chat template, so it comes from a closed set.
ROLES = {
    "system": "system",
    "developer": "system",  # OpenAI's newer word; no open model's template knows it
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "function",
}
EXTRA = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning")
# OpenAI's and vLLM's names, and those of Qwen's own scripts.
MEDIA: dict[str, Modality] = {
    "image_url": "image",
    "video_url": "video",
    "audio_url": "audio",
    "image": "image",
    "video": "video",
    "audio": "audio",
}
DETAILS = (None, "auto", "low", "high", "original")
AUDIO_FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "aac", "webm", "amr")
MAX_FRAME_URLS = 10_000  # of one video; what a server takes is in its MediaLimits

Content = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "object"}},
                {"type": "null"},
            ],
            "description": "Text, or a list of parts: text, image_url, video_url, audio_url, input_audio, refusal. "
            "A video may be a list of URLs of its frames; fps, num_frames, max_frames, start and end may stand beside "
            "its URL.",
        }
    ),
]


class WireMessage(pydantic.BaseModel):
    """One entry of `messages`."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: Content = None


def parse_messages(wire: Sequence[WireMessage]) -> tuple[tuple[Message, ...], tuple[MediaSource, ...]]:
    """Return the messages, and the media sources in the order of their slots.

    Raises:
        InvalidRequest: `param` is the path of what is wrong, such as `messages[1].content[0].type`.
    """
    return numbered(draft_messages(wire))


def draft_messages(wire: Sequence[WireMessage]) -> list[Draft]:
    """Return the messages as they were written, for a dialect to look into.

    Raises:
        InvalidRequest: as for `parse_messages`.
    """
    if not wire:
        raise InvalidRequest("`messages` is empty; send at least one message.", param="messages")
    return [_draft(message, f"messages[{number}]") for number, message in enumerate(wire)]


def _draft(wire: WireMessage, path: str) -> Draft:
    role = ROLES.get(wire.role)
    if role is None:
        raise InvalidRequest(
            f"`{path}.role` is {wire.role[:40]!r}; roles are {', '.join(ROLES)}.", param=f"{path}.role"
        )
    extra = {name: value for name in EXTRA if (value := (wire.model_extra or {}).get(name)) is not None}
    for name, value in extra.items():
        check_plain(value, f"{path}.{name}")
    calls = extra.get("tool_calls", [])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise InvalidRequest(f"`{path}.tool_calls` must be a list of objects.", param=f"{path}.tool_calls")
    where = f"{path}.content"
    if wire.content is None or isinstance(wire.content, str):
        return Draft(role, where, [Written(wire.content or "", where, whole=True)], extra)
    if not isinstance(wire.content, list):
        raise InvalidRequest(
            f"`{where}` must be a string or a list of parts, not {json_name(wire.content)}.", param=where
        )
    parts = [_part(part, f"{where}[{number}]") for number, part in enumerate(wire.content)]
    return Draft(role, where, parts, extra)


def _part(wire: Any, path: str) -> Written | MediaSource:
    if isinstance(wire, str):
        return Written(wire, path)
    if not isinstance(wire, dict):
        raise InvalidRequest(f"`{path}` must be an object, not {json_name(wire)}.", param=path)
    kind = wire.get("type")
    if kind is None:
        kind = next((name for name in (*MEDIA, "input_audio", "text") if wire.get(name) is not None), None)
    if kind in ("text", "refusal"):
        return Written(_string(wire.get(kind), f"{path}.{kind}"), f"{path}.{kind}")
    if kind == "input_audio":
        return _input_audio(wire, path)
    if isinstance(kind, str) and kind in MEDIA:
        name = kind if kind in wire else f"{kind}_url"  # {"type": "audio", "audio_url": ...}, in Qwen2-Audio's scripts
        return _source(MEDIA[kind], wire, name if name in wire else kind, path)
    known = ", ".join(("text", *MEDIA, "input_audio", "refusal"))
    what = "is missing" if kind is None else f"is {str(kind)[:40]!r}"
    raise InvalidRequest(f"`{path}.type` {what}; known part types are {known}.", param=f"{path}.type")


def _source(kind: Modality, wire: dict[str, Any], name: str, path: str) -> MediaSource:
    where = f"{path}.{name}"
    given = wire.get(name)
    inner = given if isinstance(given, dict) else {}
    options = media_options(kind, ((wire, path), (inner, where)))
    if inner.get("detail") not in DETAILS:
        raise InvalidRequest(f"`{where}.detail` must be auto, low or high.", param=f"{where}.detail")
    url, at = (given.get("url"), f"{where}.url") if isinstance(given, dict) else (given, where)
    if kind == "video" and isinstance(url, list):
        return MediaSource(kind, "", where, options, _frame_urls(url, at))
    return MediaSource(kind, _url(url, at), where, options)


def _frame_urls(wire: list[Any], path: str) -> tuple[str, ...]:
    if not 0 < len(wire) <= MAX_FRAME_URLS:
        raise InvalidRequest(f"`{path}` has {len(wire)} frames; send 1 to {MAX_FRAME_URLS:,}.", param=path)
    return tuple(
        _url(frame.get("url") if isinstance(frame, dict) else frame, f"{path}[{number}]")
        for number, frame in enumerate(wire)
    )


def _url(wire: Any, path: str) -> str:
    url = _string(wire, path)
    if not url.strip():
        raise InvalidRequest(f"`{path}` is empty; send an http(s) or data: URL.", param=path)
    return url


def _input_audio(part: dict[str, Any], path: str) -> MediaSource:
    where, wire = f"{path}.input_audio", part.get("input_audio")
    if not isinstance(wire, dict):
        raise InvalidRequest(f"`{where}` must be an object with `data` and `format`.", param=where)
    data, container = _string(wire.get("data"), f"{where}.data"), wire.get("format")
    if container not in AUDIO_FORMATS:
        raise InvalidRequest(f"`{where}.format` must be one of {', '.join(AUDIO_FORMATS)}.", param=f"{where}.format")
    url = data if data[:5].lower() == "data:" else f"data:audio/{container};base64,{data}"
    return MediaSource("audio", url, where, media_options("audio", ((part, path), (wire, where))))


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"`{path}` must be a string, not {json_name(value)}.", param=path)
    return value
