"""What the offline API takes: prompts with media in memory, and OpenAI messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

import msgspec

from sensorium.errors import InvalidRequest
from sensorium.in_memory import to_item, to_items
from sensorium.protocol.content import WireMessage, parse_messages
from sensorium.protocol.media_options import check_video_kwargs, media_options
from sensorium.protocol.parsed import Parsed
from sensorium.types import MediaItem, MediaSlot, MediaSource, Message, Modality, Request, SamplingParams

_PROMPT_KEYS = ("prompt", "prompt_token_ids", "multi_modal_data", "mm_processor_kwargs", "cache_salt")


class PromptDict(TypedDict, total=False):
    """One prompt: `prompt` or `prompt_token_ids`, and the media it has placeholders for."""

    prompt: str
    prompt_token_ids: list[int]
    multi_modal_data: Mapping[str, Any]  # {"image" | "video" | "audio": what `in_memory` takes, or a list of it}
    mm_processor_kwargs: dict[str, Any] | None
    cache_salt: str


Prompt = str | list[int] | PromptDict


def prompt_list(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    """Return the prompts, one being a list of one. Token ids are one prompt.

    Raises:
        InvalidRequest: that is no prompt.
    """
    if not isinstance(prompts, (str, Mapping, Sequence)):
        raise InvalidRequest("prompts must be a string, token ids, a dict, or a list of them.", param="prompts")
    single = isinstance(prompts, (str, Mapping)) or (len(prompts) > 0 and isinstance(prompts[0], int))
    return cast("Sequence[Prompt]", [prompts] if single else prompts)


def check_sampling(given: object) -> None:
    """Refuse what is not a list of SamplingParams, a dict for example.

    Raises:
        InvalidRequest: it is something else.
    """
    if not isinstance(given, Sequence) or not all(isinstance(one, SamplingParams) for one in given):
        raise InvalidRequest("sampling_params must be SamplingParams, or a list of them.", param="sampling_params")


def from_prompt(prompt: Prompt, model: str, request_id: str, sampling: SamplingParams) -> Parsed:
    """Return the request of a raw prompt.

    Raises:
        InvalidRequest: it is not a prompt; `param` names the part that is wrong.
    """
    given: Mapping[str, Any]
    if isinstance(prompt, str):
        given = {"prompt": prompt}
    elif isinstance(prompt, Mapping):
        given = prompt
    else:
        given = {"prompt_token_ids": list(prompt)}
    for key in given:
        if key not in _PROMPT_KEYS:
            raise InvalidRequest(
                f"A prompt has no field {key!r}; fields are {', '.join(_PROMPT_KEYS)}.", param=str(key)
            )
    if ("prompt" in given) == ("prompt_token_ids" in given):
        raise InvalidRequest("A prompt needs either 'prompt' or 'prompt_token_ids'.", param="prompt")
    request = Request(
        request_id,
        sampling,
        prompt=given.get("prompt"),
        prompt_token_ids=given.get("prompt_token_ids"),
        media=_media(given.get("multi_modal_data") or {}),
        mm_processor_kwargs=check_video_kwargs(dict(given.get("mm_processor_kwargs") or {}), "mm_processor_kwargs"),
        cache_salt=given.get("cache_salt") or "",
    )
    return Parsed(model, request)


def from_messages(
    messages: Sequence[Mapping[str, Any]], model: str, request_id: str, sampling: SamplingParams, **template: Any
) -> Parsed:
    """Return the request of a conversation.

    Beside OpenAI's parts there is {"type": "image", "image": PIL image}, and the same with "video" and "audio".

    Raises:
        InvalidRequest: `param` is the path of what is wrong.
    """
    in_memory: list[MediaItem] = []
    wire = [
        WireMessage(
            **{**message, "content": _set_aside(message.get("content"), f"messages[{number}].content", in_memory)}
        )
        for number, message in enumerate(messages)
    ]
    parsed, sources = parse_messages(wire)
    parsed, sources = _renumber(parsed, sources, len(in_memory))
    request = Request(request_id, sampling, messages=parsed, media=tuple(in_memory), **template)
    return Parsed(model, request, sources)


_ASIDE = "in-memory:"
_IN_MEMORY: dict[Any, Modality] = {"image": "image", "image_pil": "image", "video": "video", "audio": "audio"}


def _set_aside(content: Any, where: str, items: list[MediaItem]) -> Any:
    """Put media that are in memory into `items`, and an address that says so into the content."""
    if not isinstance(content, list):
        return content
    return [_aside(part, f"{where}[{number}]", items) for number, part in enumerate(content)]


def _aside(part: Any, path: str, items: list[MediaItem]) -> Any:
    kind = _IN_MEMORY.get(part.get("type")) if isinstance(part, Mapping) else None
    if kind is None:
        return part
    given = part.get(kind, part.get("image_pil"))
    urls = given if isinstance(given, (list, tuple)) else [given]
    if all(isinstance(url, (str, Mapping)) for url in urls):
        return part  # addresses: the wire's own forms
    others = {
        name: value for name, value in part.items() if name not in ("type", "image", "image_pil", "video", "audio")
    }
    options = media_options(kind, ((others, path),))
    items.append(msgspec.structs.replace(to_item(kind, given, path), options=options))
    return {"type": f"{kind}_url", f"{kind}_url": f"{_ASIDE}{len(items) - 1}"}


def _renumber(
    messages: tuple[Message, ...], sources: tuple[MediaSource, ...], num_in_memory: int
) -> tuple[tuple[Message, ...], tuple[MediaSource, ...]]:
    """Let slots count pictures in memory first, then the sources that have to be fetched."""
    fetched = [index for index, source in enumerate(sources) if not source.url.startswith(_ASIDE)]
    place = {index: num_in_memory + position for position, index in enumerate(fetched)}
    for index, source in enumerate(sources):
        if index not in place:
            place[index] = int(source.url.removeprefix(_ASIDE))
    moved = tuple(
        Message(
            message.role,
            tuple(
                MediaSlot(part.kind, place[part.index]) if isinstance(part, MediaSlot) else part
                for part in message.content
            ),
            message.extra,
        )
        for message in messages
    )
    return moved, tuple(sources[index] for index in fetched)


def _media(data: Mapping[str, Any]) -> tuple[MediaItem, ...]:
    items: list[MediaItem] = []
    for kind, value in data.items():
        if kind not in ("image", "video", "audio"):
            raise InvalidRequest(
                f"multi_modal_data[{kind!r}] is not supported; 'image', 'video' and 'audio' are.",
                param="multi_modal_data",
            )
        items += to_items(kind, value, f"multi_modal_data[{kind!r}]")
    return tuple(items)
