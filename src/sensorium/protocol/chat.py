"""/v1/chat/completions: its body, and its answers."""

from __future__ import annotations

from typing import Any

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import check_plain
from sensorium.protocol.content import WireMessage, parse_messages
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
from sensorium.types import Request

FALLBACK = {"max_tokens": None}  # until the context is full


class ChatBody(SamplingFields):
    """The body of POST /v1/chat/completions: OpenAI's fields and vLLM's."""

    messages: list[WireMessage]
    max_completion_tokens: Int | None = None
    logprobs: Bool | None = None
    top_logprobs: Int | None = None
    add_generation_prompt: Bool | None = None
    continue_final_message: Bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


def parse_chat(body: ChatBody, model: str, request_id: str, key_salt: str = "") -> Parsed:
    """Return what `body` asks of `model`.

    Raises:
        InvalidRequest: `param` is the path of the offending field.
    """
    check_extra(body)
    check_stream_options(body)
    check_template_fields(body.chat_template, body.chat_template_kwargs)
    continue_final = bool(body.continue_final_message)
    add_prompt = not continue_final if body.add_generation_prompt is None else body.add_generation_prompt
    if continue_final and add_prompt:
        raise InvalidRequest(
            "`continue_final_message` and `add_generation_prompt` exclude each other.", param="continue_final_message"
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
    messages, sources = parse_messages(body.messages)
    wins = body.max_completion_tokens is not None
    given = given_sampling(
        body,
        FALLBACK,
        {"logprobs": "top_logprobs"} | ({"max_tokens": "max_completion_tokens"} if wins else {}),
        max_tokens=body.max_completion_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    request = Request(
        id=request_id,
        sampling=given.over({}),
        messages=messages,
        add_generation_prompt=add_prompt,
        continue_final_message=continue_final,
        add_special_tokens=bool(body.add_special_tokens),
        chat_template_kwargs=body.chat_template_kwargs or {},
        mm_processor_kwargs=processor_kwargs(body),
        cache_salt=combined_salt(key_salt, body.cache_salt),
    )
    return Parsed(model, request, sources, given)


def check_template_fields(template: str | None, kwargs: dict[str, Any] | None) -> None:
    """Refuse a template of the client's: it is a program, and it would run in the server."""
    if template is not None:
        raise InvalidRequest(
            "`chat_template` in a request is not allowed by this server; start it with --chat-template instead.",
            param="chat_template",
        )
    check_plain(kwargs, "chat_template_kwargs")
