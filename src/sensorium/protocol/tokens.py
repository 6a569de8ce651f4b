"""/tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import ConfigDict

from sensorium.errors import InvalidRequest
from sensorium.protocol.chat import adds_prompt, check_template_fields, read_conversation
from sensorium.protocol.completions import Prompt, split_prompts
from sensorium.protocol.content import WireMessage
from sensorium.protocol.fields import Bool, TokenId, check_extra, processor_kwargs
from sensorium.protocol.parsed import Parsed
from sensorium.protocol.swift import MediaLists
from sensorium.types import Request, SamplingParams


class TokenizeBody(MediaLists):
    """The body of POST /tokenize: `prompt` or `messages`."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    prompt: Prompt = None
    messages: list[WireMessage] | None = None
    add_special_tokens: Bool | None = None
    add_generation_prompt: Bool | None = None
    continue_final_message: Bool | None = None
    return_token_strs: Bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None


class DetokenizeBody(pydantic.BaseModel):
    """The body of POST /detokenize."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    tokens: list[TokenId]


def parse_tokenize(body: TokenizeBody, model: str, request_id: str, *, trust_template: bool = False) -> Parsed:
    """Return the request whose prompt is to be built.

    Raises:
        InvalidRequest: `param` is the path of the offending field.
    """
    check_extra(body)
    options = processor_kwargs(body)
    check_template_fields(body.chat_template, body.chat_template_kwargs, trust_template)
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest("Send either `prompt` or `messages`.", param="prompt")
    sampling = SamplingParams(max_tokens=1)
    if body.messages is None:
        prompts = split_prompts(body.prompt)
        if len(prompts) != 1 or not isinstance(prompts[0], str):
            raise InvalidRequest("`prompt` must be a string.", param="prompt")
        special = body.add_special_tokens
        return Parsed(model, Request(request_id, sampling, prompt=prompts[0], add_special_tokens=special))
    messages, sources = read_conversation(body.messages, body)
    continue_final = bool(body.continue_final_message)
    request = Request(
        request_id,
        sampling,
        messages=messages,
        add_generation_prompt=adds_prompt(body.add_generation_prompt, continue_final),
        continue_final_message=continue_final,
        add_special_tokens=body.add_special_tokens,
        chat_template=body.chat_template,
        chat_template_kwargs=body.chat_template_kwargs or {},
        mm_processor_kwargs=options,
    )
    return Parsed(model, request, sources)
