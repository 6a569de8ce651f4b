"""POST /, rtp-llm's own endpoint: raw prompts, pictures by `<img/>` and `urls` or inline, `generate_config`.

    {"prompt": "Picture 1:<img/>\\nWhat is it?", "urls": ["https://..."], "generate_config": {"max_new_tokens": 100}}

In a raw prompt the model's control tokens count, as in /v1/completions; where a picture stands, the model's own marker
is put. Source: rtp-llm's structure/request_extractor.py and models/qwen_vl.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import json_name
from sensorium.protocol.completions import MAX_CHOICES, MAX_PROMPTS
from sensorium.protocol.content import WireMessage, draft_messages
from sensorium.protocol.draft import Written, numbered, numbered_parts
from sensorium.protocol.fields import Bool
from sensorium.protocol.parsed import Given, Parsed
from sensorium.protocol.rtp_config import WIRE, GenerateConfig, sampling_fields
from sensorium.protocol.swift import read_tags
from sensorium.protocol.tags import Item, Place, cut
from sensorium.types import MediaSource, Request

DEFAULTS: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "top_k": 0, "max_tokens": 1000}


class RawBody(GenerateConfig):
    """The body of rtp-llm's POST /. What `generate_config` takes may also stand beside the prompt, and wins there."""

    model: str | None = None
    prompt: Any = None
    text: Any = None
    prompt_batch: list[str] | None = None
    messages: list[WireMessage] | None = None
    urls: list[Any] | None = None
    images: list[Any] | None = None
    generate_config: GenerateConfig | None = None
    generation_config: GenerateConfig | None = None
    stream: Bool | None = None


@dataclass(frozen=True)
class RawRequest:
    """What the body asks, and in which shape the answer is wanted."""

    prompts: list[Parsed]
    batch: bool
    sequences: bool  # the answers of a prompt are a list, even of one
    stream: bool
    incremental: bool
    input_ids: bool
    output_ids: bool


def parse_raw(body: RawBody, model: str, request_id: str, key_salt: str = "") -> RawRequest:
    """Return what `body` asks of `model`; ids of several requests are `request_id` with the prompt's number behind it.

    Raises:
        InvalidRequest: `param` is the path of the offending field.
    """
    configs = _configs(body)
    given = Given(_sampling(configs), wire=WIRE)
    sampling = given.over({})
    texts, batch = _texts(body)
    whole = Request(request_id, sampling, cache_salt=key_salt)
    if body.messages is not None:
        drafts = draft_messages(body.messages)
        read_tags(drafts, _urls(body, 1)[0])
        messages, media = numbered(drafts)
        prompts = [Parsed(model, msgspec.structs.replace(whole, messages=messages), media, given)]
    else:
        urls = _urls(body, len(texts))
        if len(texts) * sampling.n > MAX_CHOICES:
            raise InvalidRequest(
                f"{len(texts)} prompts with {sampling.n} answers each are too many; at most {MAX_CHOICES} answers are "
                "made for one request.",
                param="num_return_sequences",
            )
        prompts = [
            _parsed(text, where, media, model, whole, number if len(texts) > 1 else None, given)
            for number, ((text, where), media) in enumerate(zip(texts, urls, strict=True))
        ]

    stream = bool(body.stream) or _asked(configs, "yield_generator")
    incremental = _asked(configs, "return_incremental")
    if incremental and not stream:
        raise InvalidRequest(
            "`return_incremental` needs `yield_generator` to be true.", param="generate_config.return_incremental"
        )
    return RawRequest(
        prompts,
        batch=batch,
        sequences=_asked(configs, "num_return_sequences"),
        stream=stream,
        incremental=incremental,
        input_ids=_asked(configs, "return_input_ids"),
        output_ids=_asked(configs, "return_output_ids"),
    )


def _configs(body: RawBody) -> list[tuple[GenerateConfig, str]]:
    """Return where the body says how to answer, each place with its path; later ones win."""
    places = ((body.generation_config, "generation_config."), (body.generate_config, "generate_config."), (body, ""))
    return [(config, path) for config, path in places if config is not None]


def _sampling(configs: Sequence[tuple[GenerateConfig, str]]) -> dict[str, Any]:
    fields = dict(DEFAULTS)
    for config, path in configs:
        fields |= sampling_fields(config, path)
    return fields


def _asked(configs: Sequence[tuple[GenerateConfig, str]], name: str) -> bool:
    return any(getattr(config, name) for config, _ in configs)


def _parsed(
    text: str, where: str, urls: list[MediaSource], model: str, whole: Request, number: int | None, given: Given
) -> Parsed:
    sources: list[MediaSource] = []
    parts = numbered_parts(prompt_parts(text, where, urls), sources)
    if not parts:
        raise InvalidRequest(f"`{where}` is empty.", param=where)
    request_id = whole.id if number is None else f"{whole.id}-{number}"
    return Parsed(model, msgspec.structs.replace(whole, id=request_id, prompt=parts), tuple(sources), given)


def prompt_parts(text: str, where: str, urls: Sequence[MediaSource]) -> list[Written | MediaSource]:
    """Return a raw prompt with its pictures in their places.

    Each `<img/>`, or `<image>` in LLaVA's way, takes one of `urls`, in order; `<img>X</img>` is a picture of its own.
    Without tags for them, `urls` stand before the prompt, a line for each.

    Raises:
        InvalidRequest: a tag is half a pair, or tags and `urls` differ in number.
    """
    pieces = list(cut(text, where, strict=True, only="image"))
    gaps = [piece for piece in pieces if isinstance(piece, Place) and (urls or piece.tag == "<img/>")]
    if gaps and len(gaps) != len(urls):
        at = ", ".join(str(gap.at) for gap in gaps[:10])
        raise InvalidRequest(
            f"`{where}` has {len(gaps)} picture tags (at character {at}) and {len(urls)} URLs were given; they must be "
            "equal in number.",
            param=where,
            code="media_tag_mismatch",
        )
    waiting = iter(urls)
    parts: list[Written | MediaSource] = []
    num_inline = 0
    if not gaps:
        for source in urls:
            parts += [source, Written("\n", where)]
    for piece in pieces:
        if isinstance(piece, Item):
            parts.append(MediaSource("image", piece.url, f"{where}.<img>[{num_inline}]"))
            num_inline += 1
        elif isinstance(piece, str):
            parts.append(Written(piece, where))
        else:
            parts.append(next(waiting) if gaps else Written(piece.tag, where))
    return parts


def _texts(body: RawBody) -> tuple[list[tuple[str, str]], bool]:
    """Return the prompts with their paths, and whether they are a batch."""
    names = [name for name in ("prompt_batch", "prompt", "text", "messages") if getattr(body, name) is not None]
    if len(names) != 1:
        what = f"{len(names)} of them were given" if names else "none was given"
        raise InvalidRequest(f"Send one of `prompt`, `text`, `prompt_batch` and `messages`; {what}.", param="prompt")
    name = names[0]
    if name == "messages":
        return [], False
    wire = getattr(body, name)
    if isinstance(wire, str):
        return [(wire, name)], False
    if not isinstance(wire, list) or not wire or len(wire) > MAX_PROMPTS:
        what = f"{len(wire)} entries" if isinstance(wire, list) else json_name(wire)
        raise InvalidRequest(f"`{name}` must be a string or a list of 1 to {MAX_PROMPTS}, not {what}.", param=name)
    for number, text in enumerate(wire):
        if not isinstance(text, str):
            where = f"{name}[{number}]"
            raise InvalidRequest(f"`{where}` must be a string, not {json_name(text)}.", param=where)
    return [(text, f"{name}[{number}]") for number, text in enumerate(wire)], name == "prompt_batch" or len(wire) > 1


def _urls(body: RawBody, num_prompts: int) -> list[list[MediaSource]]:
    """Return the pictures of each prompt: a list of strings for one, a list of lists for several."""
    if body.urls and body.images:
        raise InvalidRequest("`images` and `urls` are the same list; send one of them.", param="urls")
    name = "urls" if body.urls else "images"
    wire = body.urls or body.images or []
    if not wire:
        return [[] for _ in range(num_prompts)]
    if not any(isinstance(entry, list) for entry in wire) and num_prompts == 1:
        wire, nested = [wire], False
    else:
        nested = True
    if len(wire) != num_prompts:
        raise InvalidRequest(f"`{name}` has {len(wire)} lists for {num_prompts} prompts.", param=name)
    found: list[list[MediaSource]] = []
    for outer, entries in enumerate(wire):
        if not isinstance(entries, list):
            raise InvalidRequest(
                f"`{name}[{outer}]` must be the list of prompt {outer}'s URLs, not {json_name(entries)}.",
                param=f"{name}[{outer}]",
            )
        found.append([])
        for inner, url in enumerate(entries):
            where = f"{name}[{outer}][{inner}]" if nested else f"{name}[{inner}]"
            if not isinstance(url, str) or not url.strip():
                what = "is empty" if isinstance(url, str) else f"is {json_name(url)}"
                raise InvalidRequest(f"`{where}` {what}; send a URL, a path or base64.", param=where)
            found[-1].append(MediaSource("image", url, where))
    return found
