"""From a request to what a model of the transformers library takes: token ids and its other inputs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from sensorium.engine.sequence import Prompt
from sensorium.errors import ContextLengthExceeded, InvalidRequest, MediaError
from sensorium.hf.pictures import PictureProcessor
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.prompt.build import build, check_slots, render_chat
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LibraryPrompt(Prompt):
    """A prompt with the model's inputs beside token ids: pixel values, token types ..., batch dimension 1."""

    inputs_by_name: Mapping[str, torch.Tensor] = field(default_factory=dict)


class LibraryPromptBuilder:
    """Prepares requests; called from several threads at once.

    Args:
        pictures: None for a model that takes text only.
        placeholder: what stands for a picture in a prompt's text; "" where the processor alone knows.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        pictures: PictureProcessor | None,
        media_decoder: MediaDecoder | None,
        *,
        placeholder: str,
        vocab_size: int,
        max_model_len: int,
    ) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._pictures, self._media_decoder = pictures, media_decoder
        self._placeholder = placeholder
        self._vocab_size, self._max_model_len = vocab_size, max_model_len
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
        if request.mm_processor_kwargs:
            name = next(iter(request.mm_processor_kwargs))
            raise InvalidRequest(
                f"mm_processor_kwargs.{name} cannot be set: this model runs on the engine transformers, whose "
                "processor is used as the checkpoint configures it. Send a smaller picture instead.",
                param=f"mm_processor_kwargs.{name}",
            )
        prompt, text = self._with_pictures(request) if request.media else self._text_only(request)
        self._check_ids(source, prompt.token_ids)  # a tokenizer can have more tokens than the model has embeddings
        if bounded and len(prompt.token_ids) >= self._max_model_len:
            pictures = "send smaller or fewer pictures, " if request.media else ""
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self._max_model_len} tokens; the prompt has "
                f"{len(prompt.token_ids)}, which leaves no room for an answer. Shorten the prompt, {pictures}or raise "
                "--max-model-len.",
                param=source,
            )
        return prompt, text

    def _text_only(self, request: Request) -> tuple[Prompt, str]:
        markers = {"image": self._placeholder} if self._pictures is not None else {}
        known = self._tokenizer.id_of(self._placeholder) if self._placeholder else None
        ids, text = build(
            request,
            self._tokenizer,
            self._template,
            media_placeholder=markers,
            placeholder_ids={} if known is None else {"image": known},
        )
        if request.messages is not None and self._needs_bos(text):
            ids = [*self._tokenizer.encode_prompt("")[:1], *ids]
        return LibraryPrompt(ids, cache_salt=request.cache_salt), text

    def _with_pictures(self, request: Request) -> tuple[Prompt, str]:
        if self._pictures is None or self._media_decoder is None or request.media[0].kind != "image":
            item = next((item for item in request.media if item.kind != "image"), request.media[0])
            raise MediaError(f"{item.where}: this model does not take {item.kind} input.", param=item.where)
        foreign: list[tuple[int, int, list[int]]] = []
        if request.messages is not None:
            check_slots(request.messages, [item.kind for item in request.media])
            guard, text = render_chat(request, self._tokenizer, self._template, {"image": self._placeholder})
            foreign = [
                (start, end, guard.plain(text[start:end], at_start=start == 0)) for start, end in guard.foreign(text)
            ]
            shown, add_special_tokens = guard.unbroken(text), self._needs_bos(text)
        elif request.prompt is not None:
            text = shown = request.prompt
            add_special_tokens = request.add_special_tokens
        else:
            raise InvalidRequest(
                "prompt_token_ids with pictures is not supported by the engine transformers; send the prompt as text.",
                param="prompt_token_ids",
            )
        self._check_placeholders(text, len(request.media), "prompt" if request.messages is None else "messages")
        pixels = [self._media_decoder.decode_image(item) for item in request.media]
        self.num_decoded += len(pixels)
        where = request.media[0].where
        try:
            processed = self._pictures(text, foreign, pixels, add_special_tokens=add_special_tokens)
        except Exception as error:  # a processor is a program of its own
            log.warning("The processor refused request %s", request.id, exc_info=True)
            raise MediaError(
                f"{where}: the model's processor does not take this prompt with {len(pixels)} pictures "
                f"({type(error).__name__}); the server's log has its words. Check sizes and number of the pictures.",
                param=where,
            ) from None
        return LibraryPrompt(processed.token_ids, cache_salt=request.cache_salt, inputs_by_name=processed.inputs), shown

    def _needs_bos(self, rendered: str) -> bool:
        """Whether a chat gets a beginning token that its template did not write, as processors of the library do it."""
        return self._pictures is not None and self._bos is not None and not rendered.startswith(self._bos)

    def _check_placeholders(self, text: str, num_pictures: int, source: str) -> None:
        found = text.count(self._placeholder) if self._placeholder else num_pictures
        if found != num_pictures:
            raise InvalidRequest(
                f"The prompt has {found} image placeholders ({self._placeholder}), but {num_pictures} image items were "
                "given. Each item needs exactly one.",
                param=source,
            )

    def _check_ids(self, name: str, ids: Iterable[int]) -> None:
        for token_id in ids:
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"{name} names the token id {token_id}; this model's ids are 0 to {self._vocab_size - 1}.",
                    param=name,
                )


def find_placeholder(processor: object, tokenizer: Tokenizer, template: ChatTemplate) -> str:
    """Return what stands for one picture in a prompt's text: the token that the template writes, or the processor's.

    "" where neither tells.
    """
    own = str(getattr(processor, "image_token", None) or "")
    if not template.writes_media("image"):
        return own
    text = {"type": "text", "text": "x"}
    without = template.render([{"role": "user", "content": [text]}])
    written = template.render([{"role": "user", "content": [{"type": "image"}, text]}])
    if own and written.count(own) > without.count(own):
        return own
    more = [token for token in tokenizer.added_tokens if written.count(token) > without.count(token)]
    return max(more, key=len, default="")
