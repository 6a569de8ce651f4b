"""The values that travel along a request's way. Pure data: no I/O, no torch.

All are msgspec structs, so the same value is what the gateway builds, what crosses the socket, and what the
worker reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal

import msgspec

from sensorium.errors import InvalidRequest
from sensorium.sampling_values import biases_of, entries_of

Modality = Literal["image", "video", "audio"]
FinishReason = Literal["stop", "length", "abort"]


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A piece of text inside a message."""

    text: str


class MediaSlot(msgspec.Struct, frozen=True, tag="media"):
    """The place of `Request.media[index]` inside a message."""

    kind: Modality
    index: int


Part = Text | MediaSlot


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn. Parts keep the order in which the client sent them."""

    role: str
    content: tuple[Part, ...] = ()
    extra: dict[str, Any] = {}  # name, tool_calls, tool_call_id ...: handed to the chat template as they are


class MediaOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What part of a clip is meant, and how many frames of it. None: as the request, or else the model, says.

    `start` and `end` are seconds. Only `start` and `end` apply to audio, none to images. Of a video that comes as a
    list of frames, `fps` says how many of them there are to a second.
    """

    fps: float | None = None
    num_frames: int | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None


class MediaSource(msgspec.Struct, frozen=True, omit_defaults=True):
    """A media item before its bytes are here: `url` is http(s):, data: or file:.

    A video may be a list of pictures instead: their URLs are `frames`, and `url` is empty.
    """

    kind: Modality
    url: str
    where: str  # "messages[1].content[0].image_url": every error about the item names it
    options: MediaOptions = MediaOptions()
    frames: tuple[str, ...] = ()


class MediaItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A media item with its bytes.

    `data` is an encoded file (PNG, MP4, MP3, ...), or what the caller had already decoded:
    * where `size` = (height, width) is given, raw RGB: one picture, or the frames of a video one after another;
      `times`, where known, are the frames' seconds;
    * where `rate` is given, mono float32 samples, little-endian; rate 0 is the rate the model wants.
    A video that came as a list of pictures has them, encoded, in `frames`, and no `data`.
    """

    kind: Modality
    data: bytes
    where: str
    size: tuple[int, int] | None = None
    options: MediaOptions = MediaOptions()
    frames: tuple[bytes, ...] = ()
    times: tuple[float, ...] = ()
    rate: int | None = None


def _plain(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How to pick tokens and when to stop. Names and neutral values are vLLM's; fields may be set, and are checked.

    `max_tokens=None` means: until the context is full. `temperature=0` is greedy. `top_k` -1 or 0 is off. `stream` may
    only be False: whole answers come from here, pieces from `LLM.stream` and from the server.
    `logprobs` is the number of alternatives beside the chosen token (0: only the chosen one; None: none).

    Raises:
        InvalidRequest: a value is out of range; `param` is the field's name.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = ()
    stop_token_ids: Sequence[int] | None = ()
    bad_words: Sequence[str] | None = ()
    logit_bias: dict[int, float] | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    max_tokens: int | None = 16
    logprobs: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    detokenize: bool = True
    stream: bool = False

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.__struct_fields__:
            raise AttributeError(f"SamplingParams has no field {name!r}.", name=name, obj=self)
        checked = msgspec.structs.replace(self, **{name: value})
        msgspec.structs.force_setattr(self, name, getattr(checked, name))

    def clone(self) -> SamplingParams:
        """Return a copy."""
        return msgspec.structs.replace(self)

    def __post_init__(self) -> None:
        stop, bad_words = entries_of("stop", self.stop, str), entries_of("bad_words", self.bad_words, str)
        # A token that the vocabulary lacks has the id None, and cannot come.
        stop_token_ids = entries_of("stop_token_ids", self.stop_token_ids, Integral | None)
        lists = {
            "stop": stop,
            "stop_token_ids": tuple(int(one) for one in stop_token_ids if one is not None),
            "bad_words": bad_words,
            "logit_bias": biases_of(self.logit_bias),
        }
        for name, entries in lists.items():
            msgspec.structs.force_setattr(self, name, entries)
        bounds: tuple[tuple[str, float | None, float, float], ...] = (
            ("n", self.n, 1, MAX_N),
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 1e-9, 1.0),
            ("top_k", self.top_k, -1, 1 << 31),
            ("min_p", self.min_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, 1e-6, 100.0),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
            ("min_tokens", self.min_tokens, 0, 1 << 31),
            ("max_tokens", self.max_tokens, 1, 1 << 31),
            ("logprobs", self.logprobs, 0, MAX_LOGPROBS),
            ("seed", self.seed, -(1 << 63), (1 << 64) - 1),
            ("stop", len(stop), 0, MAX_STOPS),
            ("bad_words", len(bad_words), 0, MAX_BAD_WORDS),
            ("logit_bias", len(self.logit_bias or ()), 0, MAX_LOGIT_BIAS),
        )
        for name, value, low, high in bounds:
            if value is not None and not isinstance(value, Integral if name in _WHOLE else Real):
                what = "a whole number" if name in _WHOLE else "a number"
                raise InvalidRequest(f"{name} is {type(value).__name__}; it must be {what}.", param=name)
            # `not (a <= x <= b)` also catches NaN.
            if value is not None and not low <= value <= high:
                what = f"{name} has {value} entries" if name in _COUNTED else f"{name} is {value}"
                raise InvalidRequest(f"{what}; it must lie between {_plain(low)} and {_plain(high)}.", param=name)
        for name, texts in (("stop", stop), ("bad_words", bad_words)):
            if any(not text for text in texts):
                raise InvalidRequest(f"{name} holds an empty string; leave it out.", param=name)
        if any(len(word) > MAX_BAD_WORD for word in bad_words):
            raise InvalidRequest(f"bad_words has a word of more than {MAX_BAD_WORD} characters.", param="bad_words")
        if self.stream:
            raise InvalidRequest("stream is set; LLM.stream() gives an answer piece by piece.", param="stream")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens is {self.min_tokens}, more than max_tokens, {self.max_tokens}.",
                param="min_tokens",
            )


MAX_N = 16
MAX_LOGPROBS = 20
MAX_STOPS = 16
MAX_LOGIT_BIAS = 1024
MAX_BAD_WORDS = 1024  # all are tokenized, and looked at before each token, while others wait
MAX_BAD_WORD = 1000
_WHOLE = frozenset({"n", "top_k", "min_tokens", "max_tokens", "logprobs", "seed"})
_COUNTED = frozenset({"stop", "bad_words", "logit_bias"})


class Adapter(msgspec.Struct, frozen=True):
    """A LoRA adapter as requests name it: the name it answers to, and its folder."""

    name: str
    path: str


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One generation request, ready for a model: exactly one of `messages`, `prompt`, `prompt_token_ids`.

    `prompt` is text in which the model's own control tokens count (a rendered template), or pieces of such text with
    the places of media between them; text inside `messages` never becomes a control token.
    """

    id: str
    sampling: SamplingParams
    messages: tuple[Message, ...] | None = None
    prompt: str | tuple[Part, ...] | None = None
    prompt_token_ids: list[int] | None = None
    media: tuple[MediaItem, ...] = ()
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool | None = None  # None: those of `prompt`; a chat template writes its own
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = {}
    tools: list[dict[str, Any]] | None = None
    mm_processor_kwargs: dict[str, Any] = {}  # min_pixels, max_slice_nums, ...: may only lower the server's ceiling
    cache_salt: str = ""  # requests with different salts share no cached blocks and no encoder outputs
    adapter: Adapter | None = None  # over the model's weights; None: the model as it is


class TokenLogprob(msgspec.Struct, frozen=True):
    """Log probability of one token; `rank` is 1 for the likeliest."""

    token_id: int
    token: str
    logprob: float
    rank: int = 0
    data: bytes = b""  # the token's own bytes; not always valid UTF-8


class PositionLogprobs(msgspec.Struct, frozen=True):
    """The chosen token of one position and its likeliest alternatives."""

    chosen: TokenLogprob
    top: list[TokenLogprob] = []


class MediaUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one media item: the prompt's token_ids[offset : offset + num_tokens] stand for it.

    Both are None where the engine cannot tell the tokens of several items apart. `size` and `resized` are (height,
    width) of a picture or of each frame: upright as it was sent, and what it was resized to as a whole (None: it was
    cut).
    `timestamps` are the seconds of the frames taken of a video, `seconds` is how much of a sound was heard.
    """

    kind: Modality
    where: str
    offset: int | None = None
    num_tokens: int | None = None
    size: tuple[int, int] | None = None
    resized: tuple[int, int] | None = None
    timestamps: tuple[float, ...] = ()
    seconds: float = 0.0


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The prompt is built and accepted; nothing after this can be a 4xx."""

    id: str
    num_prompt_tokens: int
    prompt_token_ids: list[int] = []
    prompt: str = ""
    media: tuple[MediaUse, ...] = ()


class Delta(msgspec.Struct, frozen=True, tag="delta", omit_defaults=True):
    """New text of choice `index`. The last delta of a choice has `finish_reason`.

    `num_tokens` says how many tokens this is where their ids are not known, and `num_prompt_tokens` how many more the
    prompt has than `Started` could say: both come from engines that are another server.
    """

    id: str
    index: int
    text: str
    token_ids: list[int] = []
    logprobs: list[PositionLogprobs] = []
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_cached_tokens: int = 0
    num_tokens: int = 0
    num_prompt_tokens: int = 0


Event = Started | Delta


class ModelInfo(msgspec.Struct, frozen=True):
    """What a loaded model tells about itself."""

    name: str
    family: str
    path: str
    max_model_len: int
    modalities: tuple[str, ...]  # "text" first
    default_sampling: dict[str, Any]  # from generation_config.json; fields of SamplingParams
    dtype: str
    device: str
    weights_bytes: int
    kv_cache_tokens: int
    load_s: float
    engine: str = "native"
    adapter: str = ""  # folder of the adapter that is always on
    limit_mm_per_prompt: dict[str, int] = {}
    media_bounds: dict[str, dict[str, float]] = {}  # by kind: what larger items are reduced to, max_seconds of a sound


class Outlook(msgspec.Struct, frozen=True):
    """A model as it would be loaded, before it is. None: not known until then.

    `max_model_len` is what the operator or else the checkpoint says; loading may find that less fits the memory.
    """

    path: str | None = None
    max_model_len: int | None = None
    media: tuple[Modality, ...] | None = None  # beside text
    limit_mm_per_prompt: dict[str, int] = {}
