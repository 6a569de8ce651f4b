"""From a request to what the engine runs: token ids, media spans, encoder inputs, positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sensorium.engine.encoder_cache import EncoderCache
from sensorium.engine.sequence import Prompt
from sensorium.errors import ContextLengthExceeded, InvalidRequest, MediaError
from sensorium.families.family import Config, EncoderInput, Family, ImageProcessor, MediaSpan
from sensorium.media.decode import Decoder as MediaDecoder
from sensorium.media.key import media_key
from sensorium.prompt.build import build
from sensorium.prompt.placeholders import expand
from sensorium.prompt.template import ChatTemplate
from sensorium.prompt.tokenizer import Tokenizer
from sensorium.types import MediaItem, Request

_PIXEL_OPTIONS = ("min_pixels", "max_pixels")


class PromptBuilder:
    """Prepares requests; called from several threads at once.

    A media item's key is a hash of its bytes as they came, so an item whose encoder output is cached is not even
    decoded.
    """

    def __init__(
        self,
        family: Family,
        config: Config,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        processor: ImageProcessor | None,
        media_decoder: MediaDecoder | None,
        cache: EncoderCache,
        *,
        vocab_size: int,
        max_model_len: int,
        processor_options: Mapping[str, Any],
    ) -> None:
        self._family, self._config = family, config
        self._tokenizer, self._template = tokenizer, template
        self._processor, self._media_decoder, self._cache = processor, media_decoder, cache
        self._max_model_len, self._vocab_size = max_model_len, vocab_size
        self._options = dict(processor_options)
        self._max_pixels = self._options.get("max_pixels") or (processor.max_pixels if processor else 0)
        self._placeholder_ids = {"image": family.image_token_id(config)} if family.image_token_id else {}
        self._markers = dict.fromkeys(self._placeholder_ids, family.image_marker)
        self._sizes: dict[bytes, tuple[tuple[int, int, int], int]] = {}  # key -> grid, num_tokens
        self.num_decoded = 0
        self.num_reused = 0

    def ids(self, request: Request) -> tuple[list[int], str]:
        """Token ids with one placeholder per media item, and the rendered text."""
        return build(
            request,
            self._tokenizer,
            self._template,
            media_placeholder=self._markers,
            placeholder_ids=self._placeholder_ids,
        )

    def build(self, request: Request, *, force_decode: bool = False, bounded: bool = True) -> tuple[Prompt, str]:
        """Return the engine's prompt and the rendered text. Not `bounded`: whatever its length.

        Raises:
            InvalidRequest: the prompt is empty, too long, or a media item cannot be used.
        """
        source = "messages" if request.messages is not None else "prompt"
        self._check_ids("logit_bias", request.sampling.logit_bias or ())
        ids, text = self.ids(request)
        self._check_ids(source, ids)  # a tokenizer can have more tokens than the model has embeddings
        if bounded:
            self._check_length(len(ids), source, len(request.media))
        options = self._merged(request.mm_processor_kwargs)
        prepared = [self._prepare(item, request.cache_salt, options, force_decode) for item in request.media]
        if not prepared:
            return Prompt(ids, cache_salt=request.cache_salt, **self._positions(len(ids), ())), text
        expanded, offsets = expand(
            ids, self._placeholder_ids, [("image", num_tokens) for _, _, num_tokens, _ in prepared]
        )
        if bounded:
            self._check_length(len(expanded), source, len(request.media))
        spans = tuple(
            MediaSpan(offset, num_tokens, key, grid)
            for offset, (key, grid, num_tokens, _) in zip(offsets, prepared, strict=True)
        )
        inputs = tuple(item for *_, item in prepared)
        return (
            Prompt(expanded, spans, inputs, cache_salt=request.cache_salt, **self._positions(len(expanded), spans)),
            text,
        )

    def _positions(self, length: int, spans: tuple[MediaSpan, ...]) -> dict[str, Any]:
        if self._family.positions is None:
            return {}
        positions, delta = self._family.positions(length, spans, self._config)
        return {"positions": positions, "position_delta": delta}

    def _check_length(self, length: int, source: str, num_pictures: int) -> None:
        if length >= self._max_model_len:
            pictures = "send smaller or fewer pictures (mm_processor_kwargs.max_pixels), " if num_pictures else ""
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self._max_model_len} tokens; the prompt has {length}, which "
                f"leaves no room for an answer. Shorten the prompt, {pictures}or raise --max-model-len.",
                param=source,
            )

    def _check_ids(self, name: str, ids: Iterable[int]) -> None:
        for token_id in ids:
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"{name} names the token id {token_id}; this model's ids are 0 to {self._vocab_size - 1}.",
                    param=name,
                )

    def _merged(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The server's pixel limits, lowered by the request's."""
        merged = dict(self._options)
        for name in wanted:
            if name not in _PIXEL_OPTIONS:
                raise InvalidRequest(
                    f"mm_processor_kwargs.{name} is not known; this model takes {' and '.join(_PIXEL_OPTIONS)}.",
                    param=f"mm_processor_kwargs.{name}",
                )
        for name in _PIXEL_OPTIONS:
            value = wanted.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise InvalidRequest(
                    f"mm_processor_kwargs.{name} is {value!r}; it must be a positive whole number of pixels.",
                    param=f"mm_processor_kwargs.{name}",
                )
            merged[name] = min(value, self._max_pixels)
        return merged

    def _prepare(
        self, item: MediaItem, salt: str, options: Mapping[str, Any], force_decode: bool
    ) -> tuple[bytes, tuple[int, int, int], int, EncoderInput | None]:
        """(key, grid, num_tokens, input); no input where the encoder output is cached."""
        if item.kind != "image" or self._processor is None or self._media_decoder is None:
            raise MediaError(f"{item.where}: this model does not take {item.kind} input.", param=item.where)
        key = media_key(item, salt, self._processor.fingerprint(), options)
        known = self._sizes.get(key)
        if known is not None and key in self._cache and not force_decode:
            self.num_reused += 1
            return key, *known, None
        pixels = self._media_decoder.decode_image(item)  # (height, width, 3) uint8
        try:
            encoder_input = self._processor(pixels, options)
        except ValueError as error:
            raise MediaError(f"{item.where}: {error}", param=item.where) from None
        self.num_decoded += 1
        if len(self._sizes) > 65536:
            self._sizes.clear()  # only a shortcut: what is not known is decoded again
        self._sizes[key] = (encoder_input.grid, encoder_input.num_tokens)
        return key, encoder_input.grid, encoder_input.num_tokens, encoder_input
