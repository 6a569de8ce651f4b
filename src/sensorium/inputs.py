"""What the offline API takes: prompts with media in memory, and OpenAI messages."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

import msgspec
import pydantic

from sensorium.errors import InvalidRequest
from sensorium.in_memory import to_item, to_items
from sensorium.protocol.body import field_path
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
    if not isinstance(prompts, (str, Mapping, Sequence)) or isinstance(prompts, (bytes, bytearray)):
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
    elif isinstance(prompt, Iterable):
        given = {"prompt_token_ids": prompt}
    else:
        raise InvalidRequest("A prompt must be a string, token ids, or a dict.", param="prompt")
    for key in given:
        if key not in _PROMPT_KEYS:
            raise InvalidRequest(
                f"A prompt has no field {key!r}; fields are {', '.join(_PROMPT_KEYS)}.", param=str(key)
            )
    if ("prompt" in given) == ("prompt_token_ids" in given):
        raise InvalidRequest("A prompt needs either 'prompt' or 'prompt_token_ids'.", param="prompt")
    processor = _field(given, "mm_processor_kwargs", Mapping, "a dict") or {}
    request = Request(
        request_id,
        sampling,
        prompt=_field(given, "prompt", str, "a string"),
        prompt_token_ids=_token_ids(given.get("prompt_token_ids")),
        media=_media(_field(given, "multi_modal_data", Mapping, "a dict") or {}),
        mm_processor_kwargs=check_video_kwargs(dict(processor), "mm_processor_kwargs"),
        cache_salt=_salt(_field(given, "cache_salt", str, "a string") or ""),
    )
    return Parsed(model, request)


def _field(given: Mapping[str, Any], name: str, kind: type, what: str) -> Any:
    value = given.get(name)
    if value is not None and not isinstance(value, kind):
        raise InvalidRequest(f"{name} must be {what}, not {type(value).__name__}.", param=name)
    return value


def _token_ids(given: Any) -> list[int] | None:
    if given is None:
        return None
    try:
        if isinstance(given, (bytes, bytearray)):
            raise TypeError
        return [int(operator.index(one)) for one in given]
    except TypeError:
        raise InvalidRequest("prompt_token_ids must be a list of whole numbers.", param="prompt_token_ids") from None


def _salt(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("cache_salt holds characters that are not valid Unicode.", param="cache_salt") from None
    return text


def from_messages(
    messages: Sequence[Mapping[str, Any]], model: str, request_id: str, sampling: SamplingParams, **template: Any
) -> Parsed:
    """Return the request of a conversation.

    Beside OpenAI's parts there is {"type": "image", "image": PIL image}, and the same with "video" and "audio".

    Raises:
        InvalidRequest: `param` is the path of what is wrong.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise InvalidRequest("messages must be a list of messages, each a dict.", param="messages")
    template["mm_processor_kwargs"] = check_video_kwargs(
        template.get("mm_processor_kwargs") or {}, "mm_processor_kwargs"
    )
    in_memory: list[MediaItem] = []
    wire = [_wire(message, number, in_memory) for number, message in enumerate(messages)]
    parsed, sources = parse_messages(wire)
    parsed, sources = _renumber(parsed, sources, len(in_memory))
    request = Request(request_id, sampling, messages=parsed, media=tuple(in_memory), **template)
    return Parsed(model, request, sources)


# Nobody else can write such an address: one in a message would name another item of the request.
_ASIDE = f"in-memory-{secrets.token_hex(8)}:"
_IN_MEMORY: dict[Any, Modality] = {"image": "image", "image_pil": "image", "video": "video", "audio": "audio"}


def _wire(message: Any, number: int, items: list[MediaItem]) -> WireMessage:
    where = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise InvalidRequest(f"{where} must be a dict, not {type(message).__name__}.", param=where)
    try:
        return WireMessage(**{**message, "content": _set_aside(message.get("content"), f"{where}.content", items)})
    except pydantic.ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        path = field_path(("messages", number, *wrong["loc"]))
        raise InvalidRequest(f"`{path}` is not right: {wrong['msg']}.", param=path) from None


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
