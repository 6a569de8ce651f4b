"""From a request to what a model of the transformers library takes: token ids and its other inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from sensorium.engine.sequence import Prompt
from sensorium.errors import InvalidRequest, MediaError
from sensorium.hf.processor import LibraryProcessor
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.media.options import VIDEO_KWARGS, video_sampling
from sensorium.prompt.build import build, check_slots, render_chat, slots_of, written
from sensorium.prompt.room import Room
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem, MediaUse, Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LibraryPrompt(Prompt):
    """A prompt with the model's inputs beside token ids: pixel values, token types ..., batch dimension 1."""

    inputs_by_name: Mapping[str, torch.Tensor] = field(default_factory=dict)


class LibraryPromptBuilder:
    """Prepares requests; called from several threads at once.

    Args:
        processor: None for a model that takes text only.
        placeholders: by kind, what stands for an item in a prompt's text; "" where the processor alone knows.
        video_options: the server's, of VIDEO_KWARGS.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        processor: LibraryProcessor | None,
        media_decoder: MediaDecoder | None,
        *,
        placeholders: Mapping[str, str],
        vocab_size: int,
        max_model_len: int,
        media_limits: MediaLimits,
        video_options: Mapping[str, Any],
    ) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._processor, self._media_decoder = processor, media_decoder
        self._placeholders = placeholders
        self._limits, self._video_options = media_limits, video_options
        self._vocab_size = vocab_size
        self._room = Room(tokenizer, max_model_len)
        # What the tokenizer puts before every text, where a template does not.
        empty = tokenizer.encode_prompt("")
        bos = tokenizer.bos_token
        self._bos = bos if bos is not None and empty[:1] == [tokenizer.id_of(bos)] else None
        self.num_decoded = 0

    def build(self, request: Request, *, force_decode: bool = False, bounded: bool = True) -> tuple[Prompt, str]:
        """Return the engine's prompt and the rendered text. Not `bounded`: whatever its length.

        Raises:
            InvalidRequest: the prompt is empty, too long, or a media item cannot be used.
        """
        source = "messages" if request.messages is not None else "prompt"
        self._check_ids("logit_bias", request.sampling.logit_bias or ())
        for name in request.mm_processor_kwargs:
            if name not in VIDEO_KWARGS or "video" not in self._placeholders:
                raise InvalidRequest(
                    f"mm_processor_kwargs.{name} cannot be set: this model runs on the engine transformers, whose "
                    "processor is used as the checkpoint configures it. Send a smaller picture instead.",
                    param=f"mm_processor_kwargs.{name}",
                )

        def check(text: str) -> None:
            self._room.check(text, source, bounded=bounded)

        prompt, text = (self._with_media if request.media else self._text_only)(request, check)
        self._check_ids(source, prompt.token_ids)  # a tokenizer can have more tokens than the model has embeddings
        if bounded:
            fewer = "send fewer or smaller media items (of videos fewer frames), " if request.media else ""
            self._room.check_count(len(prompt.token_ids), source, fewer)
        return prompt, text

    def _text_only(self, request: Request, check: Callable[[str], None]) -> tuple[Prompt, str]:
        known = {kind: self._tokenizer.id_of(text) for kind, text in self._placeholders.items() if text}
        ids, text = build(
            request,
            self._tokenizer,
            self._template,
            media_placeholder=self._placeholders,
            placeholder_ids={kind: token_id for kind, token_id in known.items() if token_id is not None},
            check=check,
        )
        if request.messages is not None and not request.add_special_tokens and self._needs_bos(text):
            ids = [*self._tokenizer.encode_prompt("")[:1], *ids]
        return LibraryPrompt(ids, cache_salt=request.cache_salt), text

    def _with_media(self, request: Request, check: Callable[[str], None]) -> tuple[Prompt, str]:
        for item in request.media:
            if self._processor is None or self._media_decoder is None or item.kind not in self._placeholders:
                raise MediaError(f"{item.where}: this model does not take {item.kind} input.", param=item.where)
        assert self._processor is not None
        foreign: list[tuple[int, int, list[int]]] = []
        if request.messages is not None:
            check_slots(slots_of(request.messages), [item.kind for item in request.media], "messages")
            guard, text = render_chat(request, self._tokenizer, self._template, self._placeholders)
            check(guard.unbroken(text))
            foreign = [
                (start, end, guard.plain(text[start:end], at_start=start == 0)) for start, end in guard.foreign(text)
            ]
            shown, add_special_tokens = guard.unbroken(text), request.add_special_tokens or self._needs_bos(text)
        elif request.prompt is not None:
            text = shown = written(request.prompt, self._placeholders, [item.kind for item in request.media])
            check(text)
            add_special_tokens = request.add_special_tokens is not False
        else:
            raise InvalidRequest(
                "prompt_token_ids with media is not supported by the engine transformers; send the prompt as text.",
                param="prompt_token_ids",
            )
        self._check_placeholders(text, request)
        decoded = [self._decode(item, request.mm_processor_kwargs) for item in request.media]
        self.num_decoded += len(decoded)
        content = [(use.kind, what) for what, use in decoded]
        where = request.media[0].where
        try:
            processed = self._processor(text, foreign, content, add_special_tokens=add_special_tokens)
        except Exception as error:  # a processor is a program of its own
            log.warning("The processor refused request %s", request.id, exc_info=True)
            raise MediaError(
                f"{where}: the model's processor does not take this prompt with {len(content)} media items "
                f"({type(error).__name__}); the server's log has its words. Check their sizes, lengths and number.",
                param=where,
            ) from None
        prompt = LibraryPrompt(
            processed.token_ids,
            cache_salt=request.cache_salt,
            media=tuple(use for _, use in decoded),
            inputs_by_name=processed.inputs,
        )
        return prompt, shown

    def _decode(self, item: MediaItem, wanted: Mapping[str, Any]) -> tuple[Any, MediaUse]:
        """What the processor takes, and what there is to tell of the item: not its tokens, which it does not say."""
        assert self._media_decoder is not None
        assert self._processor is not None
        if item.kind == "image":
            picture = self._media_decoder.decode_image(item)
            return picture, MediaUse("image", item.where, size=(picture.shape[0], picture.shape[1]))
        if item.kind == "video":
            sampling = video_sampling(item, self._processor.sampling, self._limits, self._video_options, wanted)
            video = self._media_decoder.decode_video(item, sampling)
            return video, MediaUse("video", item.where, size=video.source_size, timestamps=video.times_s)
        rate, longest = self._processor.rate, self._processor.max_seconds
        audio = self._media_decoder.decode_audio(item, rate)
        seconds = len(audio.samples) / rate
        if longest is not None and seconds > longest:  # it would cut the rest off without a word
            raise MediaError(
                f"{item.where}: The sound is {seconds:.2f} s long; this model hears at most {longest:g} s of one. "
                "Choose a part of it with `start` and `end`, or send it as several shorter ones.",
                param=item.where,
            )
        return audio.samples, MediaUse("audio", item.where, seconds=seconds)

    def _needs_bos(self, rendered: str) -> bool:
        """Whether a chat gets a beginning token that its template did not write, as processors of the library do it."""
        return self._processor is not None and self._bos is not None and not rendered.startswith(self._bos)

    def _check_placeholders(self, text: str, request: Request) -> None:
        for kind, placeholder in self._placeholders.items():
            given = sum(item.kind == kind for item in request.media)
            found = text.count(placeholder) if placeholder else given
            if found != given:
                raise InvalidRequest(
                    f"The prompt has {found} {kind} placeholders ({placeholder}), but {given} {kind} items were "
                    "given. Each item needs exactly one.",
                    param="prompt" if request.messages is None else "messages",
                )

    def _check_ids(self, name: str, ids: Iterable[int]) -> None:
        for token_id in ids:
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"{name} names the token id {token_id}; this model's ids are 0 to {self._vocab_size - 1}.",
                    param=name,
                )


def find_placeholder(processor: object, tokenizer: Tokenizer, template: ChatTemplate, kind: str) -> str:
    """Return what stands for an item of `kind` in a prompt's text: the template's token, or the processor's.

    "" where neither tells.
    """
    own = str(getattr(processor, f"{kind}_token", None) or "")
    if not template.writes_media(kind):
        return own
    text = {"type": "text", "text": "x"}
    without = template.render([{"role": "user", "content": [text]}])
    written = template.render([{"role": "user", "content": [{"type": kind}, text]}])
    if own and written.count(own) > without.count(own):
        return own
    more = [token for token in tokenizer.added_tokens if written.count(token) > without.count(token)]
    return max(more, key=len, default="")
