"""From a request to what the engine runs: token ids, media spans, encoder inputs, positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.engine.sequence import Prompt
from sensorium.errors import InvalidRequest
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.family import Family, Layout, MediaSpan, Processor
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.model.lora import Lora
from sensorium.prompt.build import build
from sensorium.prompt.placeholders import expand, order_in
from sensorium.prompt.room import Room
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.settings import MediaLimits
from sensorium.types import Request
from sensorium.worker.adapters import Adapters
from sensorium.worker.preparing import MediaPreparer


class PromptBuilder:
    """Prepares requests; called from several threads at once. `media` prepares the items in them."""

    def __init__(
        self,
        family: Family,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        processors: Mapping[str, Processor],
        media_decoder: MediaDecoder | None,
        cache: EncoderCache,
        *,
        vocab_size: int,
        max_model_len: int,
        processor_options: Mapping[str, Any],
        media_limits: MediaLimits | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        self._family, self._config = family, checkpoint.config
        self._tokenizer, self._template = tokenizer, template
        self._adapters = adapters
        limits = media_limits or MediaLimits()
        self.media = MediaPreparer(processors, media_decoder, cache, processor_options, limits)
        self._vocab_size = vocab_size
        self._room = Room(tokenizer, max_model_len)
        self._placeholder_ids = {kind: media.placeholder(checkpoint) for kind, media in family.media.items()}
        self._markers = {kind: media.marker for kind, media in family.media.items()}
        self._spellings = {text: media.marker for media in family.media.values() for text in media.spellings}
        self._literals: dict[str, set[str]] = {}
        for kind, media in family.media.items():
            for text in (media.marker, *media.spellings, tokenizer.token_string(self._placeholder_ids[kind])):
                if text:
                    self._literals.setdefault(text, set()).add(kind)
        self._number = {kind: media.number(checkpoint) for kind, media in family.media.items() if media.number}

    def ids(self, request: Request, *, bounded: bool = True) -> tuple[list[int], str]:
        """Token ids with one placeholder per media item, and the rendered text."""
        source = "messages" if request.messages is not None else "prompt"
        return build(
            request,
            self._tokenizer,
            self._template,
            media_placeholder=self._markers,
            placeholder_ids=self._placeholder_ids,
            spellings=self._spellings,
            check=lambda text: self._room.check(text, source, bounded=bounded),
        )

    def build(self, request: Request, *, force_decode: bool = False, bounded: bool = True) -> tuple[Prompt, str]:
        """Return the engine's prompt and the rendered text. Not `bounded`: whatever its length.

        Raises:
            InvalidRequest: the prompt is empty, too long, or a media item cannot be used.
            ModelUnavailable: the request's adapter cannot be loaded.
        """
        lora = self._adapters.get(request.adapter) if self._adapters is not None else None
        salt = _salted(request.cache_salt, lora)
        source = "messages" if request.messages is not None else "prompt"
        self._check_ids("logit_bias", request.sampling.logit_bias or ())
        request = self._in_order(request)
        ids, text = self.ids(request, bounded=bounded)
        # A tokenizer can have more tokens than the model has embeddings; placeholders may be such, and are replaced.
        self._check_ids(source, set(ids).difference(self._placeholder_ids.values()))
        if bounded:
            self._check_length(len(ids), source, len(request.media))
        wanted = request.mm_processor_kwargs
        options = self.media.merged(wanted)
        # Media keys tell of an adapter only where it changes what comes out of an encoder.
        media_salt = salt if lora is not None and lora.parts - {"decoder"} else request.cache_salt
        prepared = self.media.prepare_all(request.media, media_salt, options, wanted, force_decode)
        if not prepared:
            return Prompt(ids, cache_salt=salt, lora=lora, **self._positions(len(ids), ())), text
        kinds = [item.kind for item in request.media]
        layouts = self._numbered(kinds, [item.layout for item in prepared])
        tokens = [layout.token_ids or layout.num_slots for layout in layouts]
        expanded, offsets = expand(ids, self._placeholder_ids, list(zip(kinds, tokens, strict=True)))
        self._check_ids(source, expanded)
        if bounded:
            self._check_length(len(expanded), source, len(request.media))
        placed = list(zip(offsets, prepared, layouts, strict=True))
        spans = tuple(MediaSpan(offset, item.key, layout) for offset, item, layout in placed)
        uses = tuple(
            msgspec.structs.replace(item.use, offset=offset, num_tokens=layout.length)
            for offset, item, layout in placed
        )
        inputs = tuple(item.input for item in prepared)
        positions = self._positions(len(expanded), spans)
        return Prompt(expanded, spans, inputs, cache_salt=salt, media=uses, lora=lora, **positions), text

    def _in_order(self, request: Request) -> Request:
        """Put the items of a raw prompt in the order of their places: programs list them kind by kind."""
        kinds = [item.kind for item in request.media]
        if len(set(kinds)) < 2 or request.messages is not None or isinstance(request.prompt, tuple):
            return request
        text = request.prompt or self._tokenizer.decode(request.prompt_token_ids or [], skip_special_tokens=False)
        order = order_in(text, self._literals, kinds)
        return msgspec.structs.replace(request, media=tuple(request.media[number] for number in order))

    def _numbered(self, kinds: Sequence[str], layouts: Sequence[Layout]) -> list[Layout]:
        """What each item takes as the first, second, ... of its kind."""
        return [
            self._number[kind](layout, kinds[:i].count(kind)) if kind in self._number else layout
            for i, (kind, layout) in enumerate(zip(kinds, layouts, strict=True))
        ]

    def _positions(self, length: int, spans: tuple[MediaSpan, ...]) -> dict[str, Any]:
        if self._family.positions is None:
            return {}
        positions, delta = self._family.positions(length, spans, self._config)
        return {"positions": positions, "position_delta": delta}

    def _check_length(self, length: int, source: str, num_items: int) -> None:
        options = [name for limits in self.media.limits.values() for name in limits if name.startswith("max_")]
        smaller = f"smaller media items (mm_processor_kwargs.{options[0]}) or " if options else ""
        self._room.check_count(length, source, f"send {smaller}fewer of them, " if num_items else "")

    def _check_ids(self, name: str, ids: Iterable[int]) -> None:
        for token_id in ids:
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"{name} names the token id {token_id}; this model's ids are 0 to {self._vocab_size - 1}.",
                    param=name,
                )


def _salted(salt: str, lora: Lora | None) -> str:
    """With another adapter the same tokens have other keys and values. A server's salts are hex."""
    return salt if lora is None else f"{lora.key}/{salt}"
