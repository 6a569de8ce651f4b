"""A request -> the body of the upstream's /v1/chat/completions or /v1/completions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sensorium.errors import InvalidRequest
from sensorium.types import MediaSlot, Message, Request, SamplingParams, Text
from sensorium.upstream.dialect import Dialect
from sensorium.upstream.media import part_of

CHAT, TEXT = "chat/completions", "completions"
_MOST = (1 << 31) - 1
_NEUTRAL = SamplingParams()
_OPENAI = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
_MORE = (
    *("top_k", "min_p", "repetition_penalty", "stop_token_ids", "bad_words", "ignore_eos", "min_tokens"),
    *("skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output"),
)


@dataclass
class Body:
    """What is sent where.

    `places` says where the client has what stands at a place of our messages: "messages[0].content[1]" -> its path.
    """

    path: str
    fields: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)


def generation_body(request: Request, model: str, dialect: Dialect, engine: str, seed: int | None = None) -> Body:
    """Return the body that asks `model` of an upstream for what `request` asks for, streamed.

    Args:
        engine: the engine kind, for messages.
        seed: of requests that bring none.

    Raises:
        InvalidRequest: the upstream does not take a field; the message and `param` name it.
    """
    body = prompt_body(request, model, dialect, engine)
    fields, sampling = body.fields, request.sampling
    fields |= _sampling(sampling, dialect, engine)
    if sampling.seed is None and seed is not None:
        fields["seed"] = seed
    if sampling.n > 1 and not copied(request, dialect):
        fields["n"] = sampling.n
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token_id): bias for token_id, bias in sampling.logit_bias.items()}
    chat = body.path == CHAT
    if sampling.max_tokens is not None:
        fields[dialect.max_tokens if chat else "max_tokens"] = sampling.max_tokens
    elif not chat:  # left out it would be 16
        if not dialect.tokenizes:
            raise refused("max_tokens", "null with a raw prompt", dialect, engine)
        fields["max_tokens"] = _MOST  # it then says that this is too much, or takes what the context leaves
    if sampling.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": sampling.logprobs} if chat else {"logprobs": sampling.logprobs}
    if not sampling.detokenize and not dialect.token_ids:
        raise refused("detokenize", "false", dialect, engine)
    fields["stream"] = True
    fields["stream_options"] = {"include_usage": True}
    if dialect.running_usage:
        fields["stream_options"]["continuous_usage_stats"] = True
    if dialect.token_ids:
        fields["return_token_ids"] = True
    return body


def prompt_body(request: Request, model: str, dialect: Dialect, engine: str) -> Body:
    """Return only what concerns the prompt; /tokenize takes the same.

    Raises:
        InvalidRequest: the upstream does not take it; the message and `param` name it.
    """
    if request.messages is not None:
        places: dict[str, str] = {}
        messages = [
            _message(message, f"messages[{number}]", request, dialect, engine, places)
            for number, message in enumerate(request.messages)
        ]
        body = Body(CHAT, {"model": model, "messages": messages}, places)
        options: dict[str, tuple[Any, Any]] = {
            "add_generation_prompt": (request.add_generation_prompt, True),
            "continue_final_message": (request.continue_final_message, False),
            "add_special_tokens": (bool(request.add_special_tokens), False),
            "chat_template": (request.chat_template, None),
            "chat_template_kwargs": (request.chat_template_kwargs, {}),
            "tools": (request.tools, None),
        }
    else:
        if isinstance(request.prompt, tuple) or request.media:
            raise refused("prompt", "a raw prompt with media in it (send messages)", dialect, engine)
        prompt = request.prompt if request.prompt is not None else request.prompt_token_ids
        body = Body(TEXT, {"model": model, "prompt": prompt})
        options = {"add_special_tokens": (request.add_special_tokens is not False or request.prompt is None, True)}
    for name, (value, quiet) in options.items():
        if value != quiet:
            if not dialect.templates:
                raise refused(name, str(value)[:40], dialect, engine)
            body.fields[name] = value
    if request.tools and dialect.templates:
        body.fields["tool_choice"] = "none"  # the model sees them, and what it says comes back as text
    if request.mm_processor_kwargs:
        if not dialect.processor_kwargs:
            name = f"mm_processor_kwargs.{next(iter(request.mm_processor_kwargs))}"
            raise refused(name, "in a request (the server's --mm-processor-kwargs are fine)", dialect, engine)
        body.fields["mm_processor_kwargs"] = request.mm_processor_kwargs
    if request.cache_salt and dialect.templates:
        body.fields["cache_salt"] = request.cache_salt
    return body


def copied(request: Request, dialect: Dialect) -> bool:
    """Whether the upstream writes one answer, and all choices are that: without chance they do not differ."""
    return request.sampling.n > 1 and request.sampling.temperature == 0 and not dialect.greedy_choices


def refused(name: str, value: str, dialect: Dialect, engine: str) -> InvalidRequest:
    """Return what to say of a field that the upstream does not take."""
    return InvalidRequest(
        f"`{name}` cannot be {value}: {dialect.name}, which is the engine {engine} of this model, does not take it. "
        "Leave it out.",
        param=name,
        code="unsupported_by_engine",
    )


def _sampling(sampling: SamplingParams, dialect: Dialect, engine: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in (*_OPENAI, *_MORE):
        value, neutral = getattr(sampling, name), getattr(_NEUTRAL, name)
        if name == "top_k" and value < 1:
            value = -1  # both -1 and 0 are off
        known = name in _OPENAI or name in dialect.sampling
        if value == neutral and (value is None or value == () or not (dialect.explicit and known)):
            continue
        if not known:
            raise refused(name, str(value)[:40], dialect, engine)
        fields[name] = list(value) if isinstance(value, tuple) else value
    stop = [sampling.stop] if isinstance(sampling.stop, str) else list(sampling.stop or ())
    if dialect.max_stops is not None and len(stop) > dialect.max_stops:
        raise refused("stop", f"{len(stop)} strings (at most {dialect.max_stops})", dialect, engine)
    return fields | ({"stop": stop} if stop else {})


def _message(
    message: Message, path: str, request: Request, dialect: Dialect, engine: str, places: dict[str, str]
) -> dict[str, Any]:
    content: str | list[dict[str, Any]]
    if all(isinstance(part, Text) for part in message.content) and len(message.content) < 2:
        content = "".join(part.text for part in message.content if isinstance(part, Text))
    else:
        content = []
        for part in message.content:
            if isinstance(part, MediaSlot):
                item = request.media[part.index]
                places[f"{path}.content[{len(content)}]"] = item.where
                content.append(part_of(item, dialect, engine))
            else:
                content.append({"type": "text", "text": part.text})
    return {"role": message.role, "content": content, **message.extra}
