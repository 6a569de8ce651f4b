"""The wire fields that chat and text completions share, and those we refuse by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import check_plain
from sensorium.protocol.media_options import check_video_kwargs
from sensorium.protocol.parsed import Given

logger = logging.getLogger(__name__)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_bool(value: Any) -> Any:
    return bool(value) if type(value) is int and value in (0, 1) else value


Int = Annotated[int, Field(strict=True)]
Float = Annotated[float, Field(strict=True)]
Bool = Annotated[bool, BeforeValidator(_as_bool), Field(strict=True)]
TokenId = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]
Strings = Annotated[
    list[str],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Bias = Annotated[float, Field(strict=True, ge=-100, le=100, allow_inf_nan=False)]


class StreamOptions(pydantic.BaseModel):
    """OpenAI's `stream_options`, and vLLM's addition."""

    include_usage: Bool | None = None
    continuous_usage_stats: Bool | None = None


class SamplingFields(pydantic.BaseModel):
    """What both endpoints accept. A null counts as absent; names are OpenAI's and vLLM's."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    n: Int | None = None
    temperature: Float | None = None
    top_p: Float | None = None
    top_k: Int | None = None
    min_p: Float | None = None
    repetition_penalty: Float | None = None
    presence_penalty: Float | None = None
    frequency_penalty: Float | None = None
    seed: Int | None = None
    stop: Strings | None = None
    stop_token_ids: list[TokenId] | None = None
    bad_words: Strings | None = None
    logit_bias: dict[str, Bias] | None = None
    ignore_eos: Bool | None = None
    min_tokens: Int | None = None
    max_tokens: Int | None = None
    skip_special_tokens: Bool | None = None
    spaces_between_special_tokens: Bool | None = None
    include_stop_str_in_output: Bool | None = None
    add_special_tokens: Bool | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    cache_salt: str | None = None
    stream: Bool | None = None
    stream_options: StreamOptions | None = None


SAMPLING = (
    *("n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "stop", "stop_token_ids", "bad_words", "ignore_eos", "min_tokens", "max_tokens"),
    *("skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output"),
)

# Known fields we do not serve (OpenAI's, vLLM's, and what SGLang and llama.cpp bind answers with) -> the values that
# ask for nothing. Null, [] and {} never ask for anything.
REFUSED: dict[str, tuple[object, ...]] = {
    "allowed_token_ids": (),
    "audio": (),
    "audios": (),
    "documents": (),
    "early_stopping": (False,),
    "ebnf": (),
    "function_call": ("none", "auto"),
    "functions": (),
    "grammar": (),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_whitespace_pattern": (),
    "images": (),
    "urls": (),
    "json_schema": (),
    "length_penalty": (0, 1),
    "logits_processors": (),
    "media_io_kwargs": (),
    "modalities": (["text"],),
    "num_beams": (1,),
    "prediction": (),
    "priority": (0,),
    "prompt_embeds": (),
    "prompt_logprobs": (False,),
    "reasoning_effort": ("none",),
    "regex": (),
    "response_format": ({"type": "text"},),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "structural_tag": (),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "videos": (),
    "web_search_options": (),
}
# Why, where leaving a field out is not all there is to say.
_BEAMS = "this server samples one token after another and does not search with beams"
REASONS = {
    "audios": "media go to /v1/chat/completions, with `messages`",
    "best_of": "it draws several answers and keeps the best; ask for `n` answers and choose",
    "early_stopping": _BEAMS,
    "images": "media go to /v1/chat/completions, with `messages`",
    "length_penalty": f"it ranks beams, and {_BEAMS}",
    "num_beams": _BEAMS,
    "priority": "requests are served in the order they come",
    "truncate_prompt_tokens": "prompts are never cut; send a shorter one",
    "urls": "media go to /v1/chat/completions, with `messages`",
    "use_beam_search": _BEAMS,
    "videos": "media go to /v1/chat/completions, with `messages`",
}

# Known, and without any effect on the answer.
HARMLESS = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "parallel_tool_calls", "request_id", "verbosity"),
    }
)
_logged: set[str] = set()


def check_extra(body: pydantic.BaseModel) -> None:
    """Refuse fields we know and do not serve; log, once each, those we have never heard of.

    Raises:
        InvalidRequest: naming the field.
    """
    for name, value in (body.model_extra or {}).items():
        quiet = (getattr(body, "n", None) or 1,) if name == "best_of" else REFUSED.get(name)
        if quiet is not None:
            if not (value is None or value in ([], {}) or value in quiet):
                why = f": {REASONS[name]}" if name in REASONS else ""
                raise InvalidRequest(f"`{name}` is not supported by this server{why}; leave it out.", param=name)
        elif name not in HARMLESS and name[:80] not in _logged and len(_logged) < 1000:
            _logged.add(name[:80])  # what is kept here stays
            logger.info("unknown field %r in a request is ignored (logged once)", name[:80])


def given_sampling(
    body: SamplingFields,
    fallback: dict[str, Any],
    wire: dict[str, str],
    below: Mapping[str, Any] | None = None,
    **more: Any,
) -> Given:
    """Collect the sampling fields the client sent; `more` are those the endpoint spells differently (None: absent).

    Args:
        below: fields the client sent at another place, over which those of the body win.

    Raises:
        InvalidRequest: a value is out of range.
    """
    fields = dict(below or {})
    fields |= {name: value for name in SAMPLING if (value := getattr(body, name)) is not None}
    fields |= {name: value for name, value in more.items() if value is not None}
    if body.logit_bias:
        fields["logit_bias"] = _token_biases(body.logit_bias)
    given = Given(fields, fallback, wire)
    given.over({})  # out of range is out of range for every model: say so before one is loaded
    return given


def check_stream_options(body: SamplingFields) -> None:
    """Refuse `stream_options` where nothing is streamed."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("`stream_options` needs `stream` to be true.", param="stream_options")


class HasProcessorKwargs(Protocol):
    """A body with options for the media processor."""

    mm_processor_kwargs: dict[str, Any] | None


def processor_kwargs(body: HasProcessorKwargs) -> dict[str, Any]:
    """Return `mm_processor_kwargs`, checked to be plain JSON, and what it says about videos.

    Raises:
        InvalidRequest: `param` is the path of what is wrong.
    """
    check_plain(body.mm_processor_kwargs, "mm_processor_kwargs")
    return check_video_kwargs(body.mm_processor_kwargs or {}, "mm_processor_kwargs")


def _token_biases(wire: dict[str, float]) -> dict[int, float]:
    for key in wire:
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < 1 << 31):
            raise InvalidRequest(f"logit_bias has the key {key[:40]!r}; keys are token ids.", param="logit_bias")
    return {int(key): bias for key, bias in wire.items()}
