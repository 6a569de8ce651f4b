"""What the offline API takes: prompts with pictures in memory, and OpenAI messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np
from PIL import Image, ImageOps

from sensorium.errors import InvalidRequest
from sensorium.protocol.content import WireMessage, parse_messages
from sensorium.protocol.parsed import Parsed
from sensorium.types import MediaItem, MediaSlot, MediaSource, Message, Request, SamplingParams

_PROMPT_KEYS = ("prompt", "prompt_token_ids", "multi_modal_data", "mm_processor_kwargs", "cache_salt")


class PromptDict(TypedDict, total=False):
    """One prompt: `prompt` or `prompt_token_ids`, and the pictures it has placeholders for."""

    prompt: str
    prompt_token_ids: list[int]
    multi_modal_data: Mapping[str, Any]  # {"image": a PIL image, an (h, w, 3) uint8 array, or a list of them}
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
        mm_processor_kwargs=dict(given.get("mm_processor_kwargs") or {}),
        cache_salt=given.get("cache_salt") or "",
    )
    return Parsed(model, request)


def from_messages(
    messages: Sequence[Mapping[str, Any]], model: str, request_id: str, sampling: SamplingParams, **template: Any
) -> Parsed:
    """Return the request of a conversation. Beside OpenAI's parts there is {"type": "image", "image": PIL image}.

    Raises:
        InvalidRequest: `param` is the path of what is wrong.
    """
    pictures: list[MediaItem] = []
    wire = [
        WireMessage(
            **{**message, "content": _set_aside(message.get("content"), f"messages[{number}].content", pictures)}
        )
        for number, message in enumerate(messages)
    ]
    parsed, sources = parse_messages(wire)
    parsed, sources = _renumber(parsed, sources, len(pictures))
    request = Request(request_id, sampling, messages=parsed, media=tuple(pictures), **template)
    return Parsed(model, request, sources)


_ASIDE = "in-memory:"


def _set_aside(content: Any, where: str, pictures: list[MediaItem]) -> Any:
    """Put pictures that are in memory into `pictures`, and an address that says so into the content."""
    if not isinstance(content, list):
        return content
    parts: list[Any] = []
    for number, part in enumerate(content):
        if isinstance(part, Mapping) and part.get("type") in ("image", "image_pil"):
            path = f"{where}[{number}]"
            pictures.append(to_item(part.get("image", part.get("image_pil")), path))
            parts.append({"type": "image_url", "image_url": f"{_ASIDE}{len(pictures) - 1}"})
        else:
            parts.append(part)
    return parts


def _renumber(
    messages: tuple[Message, ...], sources: tuple[MediaSource, ...], num_pictures: int
) -> tuple[tuple[Message, ...], tuple[MediaSource, ...]]:
    """Let slots count pictures in memory first, then the sources that have to be fetched."""
    fetched = [index for index, source in enumerate(sources) if not source.url.startswith(_ASIDE)]
    place = {index: num_pictures + position for position, index in enumerate(fetched)}
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
        if kind != "image":
            raise InvalidRequest(f"multi_modal_data[{kind!r}] is not supported; 'image' is.", param="multi_modal_data")
        images = value if isinstance(value, (list, tuple)) else [value]
        items += [to_item(image, f"multi_modal_data['image'][{number}]") for number, image in enumerate(images)]
    return tuple(items)


def to_item(image: Any, where: str) -> MediaItem:
    """Return a picture as raw RGB, turned the way its EXIF data says.

    Raises:
        InvalidRequest: it is neither a PIL image nor an (h, w, 3) uint8 array.
    """
    if isinstance(image, Image.Image):
        try:
            image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, SyntaxError, ValueError):
            raise InvalidRequest(f"The picture at {where} cannot be decoded.", param=where) from None
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = (
            f"an array of shape {image.shape} and type {image.dtype}" if isinstance(image, np.ndarray) else type(image)
        )
        raise InvalidRequest(f"{where} is {what}; give a PIL image or an (h, w, 3) uint8 array.", param=where)
    return MediaItem("image", image.tobytes(), where, (image.shape[0], image.shape[1]))
