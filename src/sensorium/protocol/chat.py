"""/v1/chat/completions: its body, and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import check_plain
from sensorium.protocol.content import WireMessage, draft_messages
from sensorium.protocol.draft import numbered
from sensorium.protocol.fields import (
    Bool,
    Int,
    SamplingFields,
    check_extra,
    check_stream_options,
    given_sampling,
    processor_kwargs,
)
from sensorium.protocol.parsed import Parsed, combined_salt
from sensorium.protocol.rtp_config import GenerateConfig, sampling_fields, wire_names
from sensorium.protocol.swift import MediaLists, read_tags
from sensorium.types import MediaSource, Message, Request, Text

FALLBACK = {"max_tokens": None}  # until the context is full
_EXTRA = "extra_configs."


class ChatBody(SamplingFields, MediaLists):
    """The body of POST /v1/chat/completions: OpenAI's fields, vLLM's, swift's and rtp-llm's."""

    messages: list[WireMessage]
    max_completion_tokens: Int | None = None
    logprobs: Bool | None = None
    top_logprobs: Int | None = None
    add_generation_prompt: Bool | None = None
    continue_final_message: Bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    echo: Bool | None = None
    extra_configs: GenerateConfig | None = None


def parse_chat(
    body: ChatBody, model: str, request_id: str, key_salt: str = "", *, trust_template: bool = False
) -> Parsed:
    """Return what `body` asks of `model`.

    Args:
        trust_template: run a template that comes with the request.

    Raises:
        InvalidRequest: `param` is the path of the offending field.
    """
    check_extra(body)
    check_stream_options(body)
    check_template_fields(body.chat_template, body.chat_template_kwargs, trust_template)
    continue_final = bool(body.continue_final_message)
    add_prompt = adds_prompt(body.add_generation_prompt, continue_final)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
    messages, sources = read_conversation(body.messages, body)
    given = given_sampling(
        body,
        FALLBACK,
        _wire_names(body),
        sampling_fields(body.extra_configs, _EXTRA) if body.extra_configs else None,
        max_tokens=body.max_completion_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    request = Request(
        id=request_id,
        sampling=given.over({}),
        messages=messages,
        add_generation_prompt=add_prompt,
        continue_final_message=continue_final,
        add_special_tokens=body.add_special_tokens,
        chat_template=body.chat_template,
        chat_template_kwargs=body.chat_template_kwargs or {},
        mm_processor_kwargs=processor_kwargs(body),
        cache_salt=combined_salt(key_salt, body.cache_salt),
    )
    repeats = body.echo and (not add_prompt or messages[-1].role == "assistant")
    return Parsed(model, request, sources, given, _text(messages[-1]) if repeats else "")


def read_conversation(
    wire: Sequence[WireMessage], lists: MediaLists
) -> tuple[tuple[Message, ...], tuple[MediaSource, ...]]:
    """Return the messages with their media, in whichever dialect they are written.

    Raises:
        InvalidRequest: `param` is the path of what is wrong, such as `messages[1].content`.
    """
    drafts = draft_messages(wire)
    read_tags(drafts, lists.sources())
    return numbered(drafts)


def adds_prompt(wanted: bool | None, continue_final: bool) -> bool:
    """Return whether the assistant's turn begins behind the last message: not where that is to be continued.

    Raises:
        InvalidRequest: both are wanted.
    """
    if wanted and continue_final:
        raise InvalidRequest(
            "`continue_final_message` and `add_generation_prompt` exclude each other.", param="continue_final_message"
        )
    return not continue_final if wanted is None else wanted


def check_template_fields(template: str | None, kwargs: dict[str, Any] | None, trusted: bool = False) -> None:
    """Refuse a template of the client's, unless it is trusted: it is a program, and it would run in the server."""
    for name, given in (("chat_template", template), ("chat_template_kwargs", (kwargs or {}).get("chat_template"))):
        if given is not None and (name != "chat_template" or not trusted):
            raise InvalidRequest(
                "`chat_template` in a request is not allowed by this server; start it with --chat-template FILE, or "
                "with --trust-request-chat-template.",
                param=name,
            )
    check_plain(kwargs, "chat_template_kwargs")


def _wire_names(body: ChatBody) -> dict[str, str]:
    """Return the body's names of sampling fields, where they are not ours."""
    names = wire_names(body.extra_configs, _EXTRA) if body.extra_configs else {}
    names = {ours: path for ours, path in names.items() if getattr(body, ours) is None}  # the body's own win
    names["logprobs"] = "top_logprobs"
    if body.max_completion_tokens is not None:
        names["max_tokens"] = "max_completion_tokens"
    return names


def _text(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, Text))
