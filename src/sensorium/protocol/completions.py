"""/v1/completions: its body. Its answers are in `completions_answer`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import WithJsonSchema

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import json_name
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

FALLBACK = {"max_tokens": 16}
MAX_PROMPTS = 64
MAX_CHOICES = 128

Prompt = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "array", "items": {"type": "integer"}},
                {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            ]
        }
    ),
]


class CompletionBody(SamplingFields):
    """The body of POST /v1/completions: OpenAI's fields and vLLM's."""

    prompt: Prompt
    logprobs: Int | None = None
    echo: Bool | None = None


def parse_completion(body: CompletionBody, model: str, request_id: str, key_salt: str = "") -> list[Parsed]:
    """Return one request per prompt; their ids are `request_id` with the prompt's number behind it.

    Raises:
        InvalidRequest: `param` is the path of the offending field.
    """
    check_extra(body)
    check_stream_options(body)
    if body.echo and body.logprobs is not None:
        raise InvalidRequest(
            "`echo` with `logprobs` asks for log probabilities of the prompt, which this server does not give; leave "
            "one of them out.",
            param="echo",
        )
    given = given_sampling(body, FALLBACK, {}, logprobs=body.logprobs)
    whole = Request(
        id=request_id,
        sampling=given.over({}),
        add_special_tokens=body.add_special_tokens,
        mm_processor_kwargs=processor_kwargs(body),
        cache_salt=combined_salt(key_salt, body.cache_salt),
    )
    prompts = split_prompts(body.prompt)
    if len(prompts) * whole.sampling.n > MAX_CHOICES:
        raise InvalidRequest(
            f"{len(prompts)} prompts with n={whole.sampling.n} make {len(prompts) * whole.sampling.n} choices; "
            f"at most {MAX_CHOICES} are made for one request.",
            param="n",
        )
    requests = [
        msgspec.structs.replace(
            whole,
            id=f"{request_id}-{number}" if len(prompts) > 1 else request_id,
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_token_ids=prompt if isinstance(prompt, list) else None,
        )
        for number, prompt in enumerate(prompts)
    ]
    return [Parsed(model, request, given=given) for request in requests]


def split_prompts(wire: Any) -> list[str | list[int]]:
    """Return the prompts of `prompt`: a string, a list of strings, token ids, or a list of lists of token ids."""
    if isinstance(wire, str):
        return [_prompt(wire, "prompt")]
    if not isinstance(wire, list):
        raise InvalidRequest(f"`prompt` must be a string or a list, not {json_name(wire)}.", param="prompt")
    if not wire:
        raise InvalidRequest("`prompt` is an empty list; send at least one prompt.", param="prompt")
    if type(wire[0]) is int:
        return [_prompt(wire, "prompt")]
    if len(wire) > MAX_PROMPTS:
        raise InvalidRequest(
            f"`prompt` holds {len(wire)} prompts; at most {MAX_PROMPTS} are taken in one request.", param="prompt"
        )
    return [_prompt(prompt, f"prompt[{number}]") for number, prompt in enumerate(wire)]


def _prompt(wire: Any, path: str) -> str | list[int]:
    if isinstance(wire, str):
        if wire:
            return wire
        raise InvalidRequest(f"`{path}` is empty.", param=path)
    if not isinstance(wire, list):
        raise InvalidRequest(f"`{path}` must be a string or a list of token ids, not {json_name(wire)}.", param=path)
    if not wire:
        raise InvalidRequest(f"`{path}` is empty.", param=path)
    check_token_ids(wire, path)
    return wire


def check_token_ids(wire: list[Any], path: str) -> None:
    """Refuse anything but integers that can be token ids."""
    for number, token in enumerate(wire):
        if type(token) is not int or not 0 <= token < 1 << 31:
            raise InvalidRequest(f"`{path}[{number}]` is not a token id.", param=f"{path}[{number}]")
