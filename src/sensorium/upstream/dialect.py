"""What differs between OpenAI-compatible servers: which fields they take beside OpenAI's own, and in which form.

Sources: OpenAI's API reference; vLLM 0.32, entrypoints/openai/{chat_completion,completion}/protocol.py; our own
protocol/. What a server does not take is refused by name, never left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_SAMPLING = frozenset(
    {
        *("top_k", "min_p", "repetition_penalty", "stop_token_ids", "bad_words", "ignore_eos", "min_tokens"),
        *("skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output"),
    }
)


@dataclass(frozen=True)
class Dialect:
    """One kind of server.

    Attributes:
        name: for people.
        sampling: fields of SamplingParams that it takes beside OpenAI's.
        explicit: its defaults are the model's own, so values that say nothing special are sent too.
        templates: it takes what concerns the chat template, and `cache_salt`.
        token_ids: it tells the ids of tokens where `return_token_ids` asks for them.
        running_usage: it counts tokens in every chunk where `continuous_usage_stats` asks for it.
        tokenizes: it has /tokenize and /detokenize beside /v1.
        max_tokens: how chat completions call it.
        max_stops: stop strings it takes.
        media: what of it parts of messages may be.
        sound: the kind of part a sound is.
        frames: how a video that is a list of pictures is written: a list of URLs, one URL with commas, or not at all.
        media_options: `fps`, `start`, ... may stand beside a media item's URL.
        processor_kwargs: it takes `mm_processor_kwargs`.
        greedy_choices: n above 1 is fine where temperature is 0.
        clamps: a `max_tokens` above what the context leaves means what it leaves; else it is an error.
    """

    name: str
    sampling: frozenset[str] = frozenset()
    explicit: bool = False
    templates: bool = False
    token_ids: bool = False
    running_usage: bool = False
    tokenizes: bool = False
    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    max_stops: int | None = None
    media: tuple[str, ...] = ("image", "video", "audio")
    sound: Literal["audio_url", "input_audio"] = "audio_url"
    frames: Literal["list", "joined"] | None = None
    media_options: bool = False
    processor_kwargs: bool = False
    greedy_choices: bool = True
    clamps: bool = True


VLLM = Dialect(
    "vLLM",
    sampling=_SAMPLING,
    explicit=True,
    templates=True,
    token_ids=True,
    running_usage=True,
    tokenizes=True,
    frames="joined",
    greedy_choices=False,  # "n must be 1 when using greedy sampling"
    clamps=False,
)
SENSORIUM = Dialect(
    "Sensorium",
    sampling=_SAMPLING,
    explicit=True,
    templates=True,
    running_usage=True,
    tokenizes=True,
    frames="list",
    media_options=True,
    processor_kwargs=True,
)
COMPATIBLE = Dialect(
    "the server",
    media=("image", "audio"),
    sound="input_audio",
    max_stops=4,  # what all of them took over from OpenAI
)
OPENAI = Dialect(
    "OpenAI", max_tokens="max_completion_tokens", media=("image", "audio"), sound="input_audio", max_stops=4
)
BY_NAME = {"vllm": VLLM, "sensorium": SENSORIUM, "openai": OPENAI, "compatible": COMPATIBLE}
_OWNERS = BY_NAME | {"system": OPENAI, "openai-internal": OPENAI}


def dialect_of(owner: object) -> Dialect:
    """Return the dialect of the server whose model cards say `owned_by` this."""
    return _OWNERS.get(str(owner), COMPATIBLE)
