"""What differs between model families, and nothing else.

A family is one module with a `FAMILY` constant and one row in `families/__init__.py`. It reads `config.json`,
says how checkpoint tensors are called here, and, where the model sees, builds its image processor and encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from sensorium.model.config import DecoderConfig

if TYPE_CHECKING:
    import torch

Config = Mapping[str, Any]  # a parsed JSON file of the checkpoint


@dataclass(frozen=True)
class EncoderInput:
    """One media item, ready for the encoder.

    `num_tokens` placeholder tokens stand for it in the prompt; `grid` is (t, h, w) in patches before merging.
    `pixel_values` is (t * h * w, patch_dim) float32.
    """

    pixel_values: torch.Tensor
    grid: tuple[int, int, int]
    num_tokens: int


@dataclass(frozen=True)
class MediaSpan:
    """Where a media item's placeholder tokens lie in the prompt: token_ids[offset : offset + length]."""

    offset: int
    length: int
    key: bytes  # 16 bytes: content, processor options and cache salt; equal keys mean equal embeddings
    grid: tuple[int, int, int]


class ImageProcessor(Protocol):
    """Resize and patchify: what the checkpoint's preprocessor_config.json describes."""

    @property
    def max_pixels(self) -> int:
        """Pictures are shrunk to about this many pixels."""

    def size(self, height: int, width: int, options: Mapping[str, Any]) -> tuple[tuple[int, int, int], int]:
        """Return (grid, num_tokens) for a picture of this size, without touching pixels.

        Raises:
            MediaError-free ValueError with a plain sentence, where the picture cannot be used (e.g. aspect ratio).
        """

    def __call__(self, image: npt.NDArray[np.uint8], options: Mapping[str, Any]) -> EncoderInput:
        """Turn (height, width, 3) RGB into patches. `options`: min_pixels, max_pixels."""

    def within(self, max_tokens: int) -> ImageProcessor:
        """Return a processor that makes no picture longer than `max_tokens`: larger ones are shrunk more."""

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal pictures would give other patches."""


class Encoder(Protocol):
    """A vision (later: audio) tower. Its parameters are named as `Family.rename` names them, without the prefix."""

    num_layers: int  # steps `encode` takes; each yields once
    out_features: int  # decoder hidden_size * (1 + num_deepstack_layers)

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the tower's tensors (already in the wanted dtype and on the wanted device).

        Raises:
            ConfigurationError: tensors are missing or have a wrong shape; the message names them.
        """

    def encode(self, items: Sequence[EncoderInput]) -> Iterator[list[torch.Tensor] | None]:
        """Run the tower over all items as one batch, one layer at a time.

        Yields None after each layer, so that the engine can put decode steps between two layers of a big
        picture; the last yield is the result: one (num_tokens, out_features) tensor per item, deepstack
        features concatenated behind the final ones on dim 1.
        """


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: the module's name.
        architectures: values of `architectures[0]` in config.json that this family serves.
        decoder: config.json -> DecoderConfig.
        rename: hub tensor name -> (where, name): where is "decoder" or "encoder"; None: not needed.
            Decoder names: embed_tokens.weight, layers.N.{input_layernorm,post_attention_layernorm}.weight,
            layers.N.self_attn.{q,k,v,o}_proj.{weight,bias}, layers.N.self_attn.{q,k}_norm.weight,
            layers.N.mlp.{gate,up,down}_proj.weight, norm.weight, lm_head.weight.
        image_processor: (config.json, preprocessor_config.json) -> ImageProcessor; None: text only.
        encoder: (config.json, dtype, device) -> Encoder with empty weights; None: text only.
        image_token_id: config.json -> id of the placeholder token that stands for an image.
        image_marker: what a chat template of the plain kind writes for an image; the placeholder is in it once.
        positions: (prompt length, spans, config.json) -> ((3, n) int64, delta): M-RoPE positions of the
            prompt; token number i >= n has position i + delta on all three axes. None: plain 1-d positions.
    """

    name: str
    architectures: tuple[str, ...]
    decoder: Callable[[Config], DecoderConfig]
    rename: Callable[[str], tuple[str, str] | None]
    modalities: tuple[str, ...] = ("text",)
    image_processor: Callable[[Config, Config], ImageProcessor] | None = None
    encoder: Callable[[Config, torch.dtype, torch.device], Encoder] | None = None
    image_token_id: Callable[[Config], int] | None = None
    image_marker: str = ""
    positions: Callable[[int, Sequence[MediaSpan], Config], tuple[npt.NDArray[np.int64], int]] | None = None
