"""SmolVLM and SmolVLM2: a SigLIP tower over square tiles, pixel shuffle, one linear layer, Llama. Pictures only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sensorium.errors import ConfigurationError
from sensorium.families.checkpoint import Checkpoint
from sensorium.families.decoder_config import text_part, vision_part
from sensorium.families.family import Config, Encoder, EncoderInput, Family, Layout, Media
from sensorium.families.inner_text import read_inner_text
from sensorium.families.names import rename_clip, rename_text_part
from sensorium.families.pixels import normalise, read_rescale, read_statistic
from sensorium.model.config import DecoderConfig
from sensorium.model.encoders.tile_vit import TileVit, TileVitConfig

_IMAGE, _FENCE, _WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"
_MOST_PIXELS_A_SIDE = 4096  # before a picture is cut, whatever the files say
# SmolVLMVisionConfig's, where the file is silent.
_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 32,
}


@dataclass(frozen=True)
class SmolvlmImageProcessor:
    """Pictures scaled to a longest side, cut into square tiles, and seen once more as a whole.

    Equal bit for bit to transformers' `SmolVLMImageProcessorPil` before normalising: Pillow resizes here as there,
    three times over. See `families.family.ImageProcessor`.

    Attributes:
        tile: pixels of a tile's side.
        longest: pixels of the longest side of a picture before it is cut; small ones are enlarged to it.
        split: false: every picture is one tile.
        encode: text -> token ids, control tokens included.
    """

    tile: int
    tokens_per_tile: int
    cost_per_tile: int
    slot_id: int
    longest: int
    split: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float
    resample: int
    encode: Callable[[str], list[int]]

    def layout(self, height: int, width: int, options: Mapping[str, Any]) -> Layout:
        """Return the layout of a picture of this size: every tile behind its place in the grid, and the whole last.

        Raises:
            ValueError: an option cannot be; the text is for the user.
        """
        rows, columns, _ = self._cut(height, width, options)
        slots = _IMAGE * self.tokens_per_tile
        lines = [
            "".join(f"{_FENCE}<row_{row + 1}_col_{column + 1}>{slots}" for column in range(columns)) + "\n"
            for row in range(rows)
        ]
        text = "".join(lines) + ("\n" if rows else "") + f"{_FENCE}{_WHOLE}{slots}{_FENCE}"
        return Layout.of(self.encode(text), self.slot_id)

    def __call__(self, image: npt.NDArray[np.uint8], options: Mapping[str, Any], /) -> EncoderInput:
        """Turn (height, width, 3) RGB into `pixel_values`, (num_tiles, 3, tile, tile): row by row, then the whole."""
        rows, columns, sizes = self._cut(image.shape[0], image.shape[1], options)
        picture, tile = Image.fromarray(np.ascontiguousarray(image)), self.tile
        for height, width in sizes:
            picture = picture.resize((width, height), Image.Resampling(self.resample))
        whole = picture.resize((tile, tile), Image.Resampling(self.resample)) if rows else picture
        tiles = torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None]  # (1, 3, tile, tile)
        if rows:
            cut = torch.from_numpy(np.array(picture)).view(rows, tile, columns, tile, 3)
            tiles = torch.cat([cut.permute(0, 2, 4, 1, 3).reshape(-1, 3, tile, tile), tiles])
        pixels = normalise(tiles, self.mean, self.std, self.rescale)
        layout = self.layout(image.shape[0], image.shape[1], options)
        return EncoderInput({"pixel_values": pixels}, layout, cost=len(tiles) * self.cost_per_tile)

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: requests may only lower the number of tiles beside the whole."""
        return {"max_patches": self._most(options)}

    def within(self, max_tokens: int) -> SmolvlmImageProcessor:
        """See `families.family.Processor`: less is cut, and nothing where not even four tiles fit."""
        each = self.tokens_per_tile + 3
        fitting = math.isqrt(max(max_tokens // each - 1, 1))
        return replace(self, longest=min(self.longest, fitting * self.tile))

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal pictures would give other tiles."""
        own = {name: value for name, value in vars(self).items() if name != "encode"}
        return json.dumps(["smolvlm_image 1", *own.values()]).encode()

    def _cut(self, height: int, width: int, options: Mapping[str, Any]) -> tuple[int, int, list[tuple[int, int]]]:
        """Return (rows, columns) of the grid, 0 where nothing is cut, and the sizes a picture is resized to in turn."""
        most, longest = self._most(options), self.longest
        while True:
            sizes = [_scaled(height, width, longest)]
            sizes.append(_whole_tiles(*sizes[0], self.tile) if self.split else (self.tile, self.tile))
            rows, columns = (side // self.tile for side in sizes[1])
            if rows * columns == 1:
                return 0, 0, sizes
            if rows * columns <= most:
                return rows, columns, sizes
            longest = (longest - 1) // self.tile * self.tile

    def _most(self, options: Mapping[str, Any]) -> int:
        most = options.get("max_patches", (-(-self.longest // self.tile)) ** 2)
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"max_patches is {most!r}; it must be a whole number of tiles, at least 1.")
        return most


def _scaled(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) with this longest side and an even other one, within _MOST_PIXELS_A_SIDE."""
    ratio = width / height
    if width >= height:
        height, width = int(longest / ratio), longest
        height = max(height + height % 2, 1)
    else:
        height, width = longest, int(longest * ratio)
        width = max(width + width % 2, 1)
    most, ratio = _MOST_PIXELS_A_SIDE, width / height
    if max(height, width) <= most:
        return height, width
    return (max(int(most / ratio), 1), most) if width >= height else (most, max(int(most * ratio), 1))


def _whole_tiles(height: int, width: int, tile: int) -> tuple[int, int]:
    """The size rounded up to whole tiles, the shorter side following the longer one."""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return math.ceil(int(width / ratio) / tile) * tile, width
    height = math.ceil(height / tile) * tile
    return height, math.ceil(int(height * ratio) / tile) * tile


def vision(config: Config) -> TileVitConfig:
    """The tower's shape."""
    part = _SIGLIP | dict(vision_part(config))
    return TileVitConfig(
        num_layers=part["num_hidden_layers"],
        hidden_size=part["hidden_size"],
        num_heads=part["num_attention_heads"],
        intermediate_size=part["intermediate_size"],
        image_size=part["image_size"],
        patch_size=part["patch_size"],
        out_hidden_size=_decoder(config).hidden_size,
        hidden_act=part.get("hidden_act", "gelu_pytorch_tanh"),
        eps=float(part.get("layer_norm_eps", 1e-6)),
        patch_bias=True,
        class_token=False,
        bucketed=True,
        last_norm=True,
        merge_size=int(config.get("scale_factor", 2)),
        projector_layers=1,
        projector_bias=False,
    )


def _decoder(config: Config) -> DecoderConfig:
    return read_inner_text({**config, "text_config": {"rms_norm_eps": 1e-5, **text_part(config)}})


def _encoder(config: Config, dtype: torch.dtype, device: torch.device) -> Encoder:
    return TileVit(vision(config), dtype, device)


def _processor(checkpoint: Checkpoint) -> SmolvlmImageProcessor:
    tower, settings = vision(checkpoint.config), checkpoint.image_settings
    tile = (settings.get("max_image_size") or {}).get("longest_edge", 364)
    longest = (settings.get("size") or {}).get("longest_edge", 4 * 364)
    off = [f"do_{step}" for step in ("resize", "rescale", "normalize") if not settings.get(f"do_{step}", True)]
    if tile != tower.image_size or off:
        raise ConfigurationError(
            f"preprocessor_config.json makes tiles of {tile} pixels{' without ' + off[0] if off else ''}; the tower "
            f"takes {tower.image_size}x{tower.image_size} pixels, resized, rescaled and normalised."
        )
    return SmolvlmImageProcessor(
        tile=tile,
        tokens_per_tile=tower.tokens_per_tile,
        cost_per_tile=tower.side**2,
        slot_id=_slot(checkpoint),
        longest=int(longest),
        split=bool(settings.get("do_image_splitting", True)),
        mean=read_statistic(settings, "image_mean", (0.5, 0.5, 0.5)),
        std=read_statistic(settings, "image_std", (0.5, 0.5, 0.5)),
        rescale=read_rescale(settings),
        resample=int(settings.get("resample", Image.Resampling.LANCZOS)),
        encode=checkpoint.encode,
    )


def _slot(checkpoint: Checkpoint) -> int:
    return checkpoint.config_id("image_token_id")


def _rename(name: str) -> tuple[str, str] | None:
    bare = name.removeprefix("model.")
    if bare.startswith("connector."):
        return "vision", bare.replace("connector.modality_projection.proj.", "projector.linear_1.")
    if bare.startswith("vision_model."):
        return rename_clip(bare)
    return rename_text_part(bare.removeprefix("text_model."))


FAMILY = Family(
    name="smolvlm",
    architectures=("SmolVLMForConditionalGeneration",),
    decoder=_decoder,
    rename=_rename,
    media={"image": Media(processor=_processor, placeholder=_slot, marker=_IMAGE)},
    encoders={"vision": _encoder},
    end_tokens=("<end_of_utterance>",),
)
