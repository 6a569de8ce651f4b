"""What differs between model families, and nothing else.

A family is one module with a `FAMILY` constant and one row in `families/__init__.py`. It reads `config.json`,
says how checkpoint tensors are called here, and, for each kind of media the model takes, builds a processor and
names the encoder behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sensorium.families.layout import Grid, Layout, MediaSpan
from sensorium.families.reading import typed
from sensorium.media.sampling import Sampling
from sensorium.model.config import DecoderConfig

if TYPE_CHECKING:
    import torch

    from sensorium.families.checkpoint import Checkpoint
    from sensorium.model.lora import Sites

__all__ = [
    "AudioProcessor",
    "Config",
    "Encoder",
    "EncoderInput",
    "Family",
    "Frames",
    "Grid",
    "ImageProcessor",
    "Layout",
    "Media",
    "MediaSpan",
    "Processor",
    "Tower",
    "VideoProcessor",
]

Config = Mapping[str, Any]  # a parsed JSON file of the checkpoint


class Frames(NamedTuple):
    """The frames taken of a video.

    `pixels` is (n, height, width, 3) uint8 RGB, `times` (n,) seconds from the video's first frame. `fps` is how many
    frames were taken of a second, n divided by the length of the part they were taken of; 0: unknown.
    """

    pixels: npt.NDArray[np.uint8]
    times: Sequence[float]
    fps: float = 0.0


@dataclass(frozen=True)
class EncoderInput:
    """One media item, ready for its encoder.

    Attributes:
        tensors: what the encoder reads, by the names transformers' processors use ("pixel_values", ...).
        layout: what stands for the item in the prompt.
        cost: work for the encoder, in the units of `EngineLimits.max_encoder_patches`: patches of pictures, or
            whatever takes about as long.
        encoder: which of the family's encoders reads it.
    """

    tensors: Mapping[str, torch.Tensor]
    layout: Layout
    cost: int
    encoder: str = "vision"


class Processor(Protocol):
    """From a decoded media item to the encoder's input: what preprocessor_config.json and its like describe."""

    def __call__(self, content: Any, options: Mapping[str, Any], /) -> EncoderInput:
        """Prepare one decoded item.

        Args:
            content: an image is (height, width, 3) uint8 RGB; a video is `Frames`; sound is (num_samples,) float32
                mono at `AudioProcessor.rate`.
            options: by the names in `limits`.

        Raises:
            ValueError: the item or an option cannot be used (e.g. aspect ratio); the text is for the user.
        """

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """Return the options a request may set, each with the most it may ask for, given the server's `options`."""

    def within(self, max_tokens: int) -> Processor:
        """Return a processor that makes no item longer than `max_tokens`, as far as that can be chosen."""

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal items would give another input."""


class ImageProcessor(Processor, Protocol):
    """A processor of pictures, which can also say what a picture of some size comes to."""

    def layout(self, height: int, width: int, options: Mapping[str, Any]) -> Layout:
        """Return what a picture of this size takes in the prompt, without touching pixels.

        Raises:
            ValueError: as for a call.
        """


class VideoProcessor(Processor, Protocol):
    """A processor of videos, which also says what it wants of them."""

    @property
    def sampling(self) -> Sampling:
        """Which frames, where nobody says otherwise. `max_frames` is what fits `within`, and nobody gets more."""

    def frame_pixels(self, options: Mapping[str, Any]) -> int:
        """Return how many pixels of a frame are worth decoding: larger frames may be shrunk to this before a call."""


class AudioProcessor(Processor, Protocol):
    """A processor of sounds, which also says how it wants them."""

    @property
    def rate(self) -> int:
        """Samples per second."""

    @property
    def max_seconds(self) -> float:
        """The longest clip a call takes."""


class Encoder(Protocol):
    """A vision or audio tower. Its parameters are named as `Family.rename` names them, without the prefix."""

    out_features: int  # decoder hidden_size * (1 + num_deepstack_layers)
    sites: Sites  # the layers adapters may change, once weights are loaded

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the tower's tensors (already in the wanted dtype and on the wanted device).

        Raises:
            ConfigurationError: tensors are missing or have a wrong shape; the message names them.
        """

    def encode(self, items: Sequence[EncoderInput]) -> Iterator[list[torch.Tensor] | None]:
        """Run the tower over all items as one batch, or in portions, one layer at a time.

        Yields None after each layer, so that the engine can put decode steps between two layers of a big
        picture; the last yield is the result: one (num_slots, out_features) tensor per item, deepstack
        features concatenated behind the final ones on dim 1.
        """


@dataclass(frozen=True)
class Media:
    """One kind of media a family takes.

    Attributes:
        processor: the checkpoint's files -> Processor.
        placeholder: the checkpoint's files -> id of the token that stands for an item before its layout replaces it,
            and that fills the slots of a layout without tokens of its own.
        marker: what a chat template of the plain kind writes for an item; the placeholder is in it once.
        spellings: what finished prompts and other templates write for an item; read as the marker.
        number: the checkpoint's files -> what makes of a layout that of the item number i of its kind in the prompt,
            counted from 0. None: the number changes nothing.
    """

    processor: Callable[[Checkpoint], Processor]
    placeholder: Callable[[Checkpoint], int]
    marker: str
    spellings: tuple[str, ...] = ()
    number: Callable[[Checkpoint], Callable[[Layout, int], Layout]] | None = None

    def __post_init__(self) -> None:
        files = "config.json or preprocessor_config.json"
        object.__setattr__(self, "processor", typed(self.processor, files))
        object.__setattr__(self, "placeholder", typed(self.placeholder, files))


class Tower(NamedTuple):
    """An encoder whose weights lie in a checkpoint of their own, with a config.json and a preprocessor_config.json.

    Attributes:
        name: what config.json calls it: a folder, or a hub id.
        key: where config.json says so, for errors.
        rename: its tensor names -> (where, name), as `Family.rename`.
        own_first: of tensors that both checkpoints have, the main one's count.
    """

    name: str
    key: str
    rename: Callable[[str], tuple[str, str] | None]
    own_first: bool

    def folder(self, checkpoint: Path) -> Path | None:
        """Return its folder in that of the main checkpoint or beside it; None: it is not on this machine.

        `name` may be a path of the machine the model was trained on, so ever less of it is looked for.
        """
        parts = [part for part in Path(self.name).parts if part not in (".", "..", "/")]
        places = [
            folder.joinpath(*parts[-depth:])
            for folder in (checkpoint, checkpoint.parent)
            for depth in range(len(parts), 0, -1)
        ]
        if Path(self.name).is_absolute():
            places.append(Path(self.name))
        return next((place for place in places if (place / "config.json").is_file()), None)


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: the module's name.
        architectures: values of `architectures[0]` in config.json that this family serves.
        decoder: config.json -> DecoderConfig.
        rename: hub tensor name -> (where, name): where is "decoder" or a key of `encoders`; None: not needed.
            Decoder names: embed_tokens.weight, layers.N.{input_layernorm,post_attention_layernorm}.weight,
            layers.N.self_attn.{q,k,v,o}_proj.{weight,bias}, layers.N.self_attn.{q,k}_norm.weight,
            layers.N.mlp.{gate,up,down}_proj.weight, norm.weight, lm_head.weight.
        media: "image", "video", "audio" -> how the model takes it; empty: text only.
        encoders: name -> (config.json, dtype, device) -> Encoder with empty weights.
        convert: (config.json, decoder tensors as renamed) -> the same by the names above, where a tensor has to be cut
            or joined. None: nothing has.
        positions: (prompt length, spans, config.json) -> ((3, n) int64, delta): M-RoPE positions of the
            prompt; token number i >= n has position i + delta on all three axes. None: plain 1-d positions.
        end_tokens: tokens that end an answer, beside those which the checkpoint's files name.
        end_texts: texts that end an answer and are not shown.
        chat_template: what the authors' code has instead of a template in the checkpoint; it counts before one there.
        cut_at: literals at which the authors' code cuts a prompt, to tokenize each part by itself. Those that the
            tokenizer lacks get ids behind its own.
        tower: config.json -> where the rest of the weights is. Its own config.json (of CLIP: the vision part) then is
            `vision_config` of the config that all the functions here are given. None: there is no such place.
        chat_formats: `chat_format` of generation_config.json -> template for checkpoints that bring none.
    """

    name: str
    architectures: tuple[str, ...]
    decoder: Callable[[Config], DecoderConfig]
    rename: Callable[[str], tuple[str, str] | None]
    media: Mapping[str, Media] = field(default_factory=dict)
    encoders: Mapping[str, Callable[[Config, torch.dtype, torch.device], Encoder]] = field(default_factory=dict)
    convert: Callable[[Config, Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]] | None = None
    positions: Callable[[int, Sequence[MediaSpan], Config], tuple[npt.NDArray[np.int64], int]] | None = None
    end_tokens: tuple[str, ...] = ()
    end_texts: tuple[str, ...] = ()
    chat_template: str | None = None
    cut_at: tuple[str, ...] = ()
    tower: Callable[[Config], Tower] | None = None
    chat_formats: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", typed(self.decoder, "config.json"))
        makers = {name: typed(make, "config.json") for name, make in self.encoders.items()}
        object.__setattr__(self, "encoders", makers)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What prompts may hold."""
        return ("text", *self.media)
