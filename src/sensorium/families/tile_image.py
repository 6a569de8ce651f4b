"""Pictures for InternVL: cut into up to a dozen square tiles, with the whole picture as one more tile at the end.

Equal to transformers' `GotOcr2ImageProcessor` with crop_to_patches, as far as `families/pixels.py` says; with
`by_pillow` to what the models' authors do, `dynamic_preprocess` in their model cards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sensorium.errors import ConfigurationError
from sensorium.families.family import EncoderInput, Layout
from sensorium.families.pixels import normalise, resize, resize_by_pillow
from sensorium.model.config import check_numbers

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_OPTIONS = ("max_patches", "max_dynamic_patch")  # transformers' name and that of the model's authors


@cache
def grids(min_tiles: int, max_tiles: int) -> list[tuple[int, int]]:
    """Return (columns, rows) of every grid with min_tiles..max_tiles tiles, small ones first."""
    sides = range(1, max_tiles + 1)
    found = [(columns, rows) for columns in sides for rows in sides if min_tiles <= columns * rows <= max_tiles]
    return sorted(found, key=lambda grid: grid[0] * grid[1])


def best_grid(height: int, width: int, tile: int, min_tiles: int, max_tiles: int) -> tuple[int, int]:
    """Return (columns, rows) of the grid whose aspect ratio is nearest to the picture's.

    Of equally near ones a larger one is taken only where the picture has more than half its pixels.

    Source: InternVL 1.5, arXiv:2404.16821, section 3.2; transformers `get_optimal_tiled_canvas`.
    """
    best, least = (1, 1), float("inf")
    for columns, rows in grids(min_tiles, max_tiles):
        distance = abs(width / height - columns / rows)
        if distance < least or (distance == least and height * width > 0.5 * tile * tile * columns * rows):
            best, least = (columns, rows), distance
    return best


@dataclass(frozen=True)
class TileImageProcessor:
    """What the checkpoint's files say about tiles; see `families.family.Processor`."""

    tile: int  # pixels of a side
    tokens_per_tile: int
    cost_per_tile: int
    token_ids: tuple[int, int, int]  # of <img>, of the slots, of </img>
    min_tiles: int = 1
    max_tiles: int = 12
    thumbnail: bool = True
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    rescale: float = 1 / 255
    mode: str = "bicubic"
    by_pillow: bool = False  # resized as Pillow does, not as torch does

    def __post_init__(self) -> None:
        check_numbers(self, "preprocessor_config.json or config.json")
        if self.min_tiles > self.max_tiles:
            raise ConfigurationError(f"The least number of tiles is {self.min_tiles}, the most {self.max_tiles}.")

    def layout(self, height: int, width: int, options: Mapping[str, Any]) -> Layout:
        """Return the layout of a picture of this size: <img>, slots for all its tiles, </img>.

        Raises:
            ValueError: an option cannot be; the text is for the user.
        """
        columns, rows = self._grid(height, width, options)
        return _layout(*self.token_ids, self._num_tiles(columns * rows) * self.tokens_per_tile)

    def __call__(self, image: npt.NDArray[np.uint8], options: Mapping[str, Any], /) -> EncoderInput:
        """Turn (height, width, 3) RGB into `pixel_values`, (num_tiles, 3, tile, tile): row by row, then the whole."""
        columns, rows = self._grid(image.shape[0], image.shape[1], options)
        tile, count = self.tile, self._num_tiles(columns * rows)
        picture = torch.from_numpy(np.require(image, requirements=["C", "W"]))
        canvas = self._resize(picture, rows * tile, columns * tile)
        tiles = canvas.view(rows, tile, columns, tile, 3).permute(0, 2, 4, 1, 3).reshape(-1, 3, tile, tile)
        if count > columns * rows:
            whole = self._resize(picture, tile, tile)
            tiles = torch.cat([tiles, whole.permute(2, 0, 1)[None]])
        return EncoderInput(
            {"pixel_values": normalise(tiles, self.mean, self.std, self.rescale)},
            _layout(*self.token_ids, count * self.tokens_per_tile),
            cost=count * self.cost_per_tile,
        )

    def limits(self, options: Mapping[str, Any]) -> Mapping[str, int]:
        """See `families.family.Processor`: requests may only lower the number of tiles."""
        return dict.fromkeys(_OPTIONS, self._most(options))

    def within(self, max_tokens: int) -> TileImageProcessor:
        """See `families.family.Processor`: fewer tiles, one at least."""
        fitting = (max_tokens - 2) // self.tokens_per_tile - self.thumbnail
        most = max(1, min(self.max_tiles, fitting))
        return replace(self, max_tiles=most, min_tiles=min(self.min_tiles, most))

    def fingerprint(self) -> bytes:
        """Bytes that change whenever equal pictures would give other tiles."""
        return json.dumps(["tile_image 1", *vars(self).values()]).encode()

    def _resize(self, picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return (resize_by_pillow if self.by_pillow else resize)(picture, height, width, self.mode)

    def _grid(self, height: int, width: int, options: Mapping[str, Any]) -> tuple[int, int]:
        most = self._most(options)
        return best_grid(height, width, self.tile, min(self.min_tiles, most), most)

    def _num_tiles(self, cut: int) -> int:
        """`cut` tiles and, where there are several, the whole picture."""
        return cut + (self.thumbnail and cut > 1)

    def _most(self, options: Mapping[str, Any]) -> int:
        """The number of tiles the server and the request leave."""
        wishes = {name: options[name] for name in _OPTIONS if options.get(name) is not None}
        for name, value in wishes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of tiles, at least 1.")
        return min(wishes.values(), default=self.max_tiles)


@cache
def _layout(start: int, slot: int, end: int, num_slots: int) -> Layout:
    """Shared by all pictures of as many tiles: thousands of ids each."""
    return Layout.of([start, *[slot] * num_slots, end], slot)
