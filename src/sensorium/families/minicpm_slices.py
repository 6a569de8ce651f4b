"""Into how many slices MiniCPM-V cuts a picture, and how big it makes them. Whole numbers only, no pixels.

The rounding is that of the authors' `image_processing_minicpmv.py` (LLaVA-UHD, arXiv:2403.11703, section 3.1), step
by step: a size that is off by one patch gives other tokens.
"""

from __future__ import annotations

import math

Slices = tuple[int, int]  # (columns, rows)
Size = tuple[int, int]  # (width, height) in pixels


def choose_slices(size: Size, most: int, resolution: int) -> Slices | None:
    """Return the grid of at most `most` slices nearest to the picture's shape; None: the picture is not cut.

    About as many slices as squares of `resolution` pixels fit into the picture, one more or one less.
    """
    width, height = size
    wanted = min(math.ceil(width * height / (resolution * resolution)), most)
    if wanted <= 1:
        return None
    counts = [count for count in (wanted - 1, wanted, wanted + 1) if 1 < count <= most]
    grids = [(columns, n // columns) for n in counts for columns in range(1, n + 1) if n % columns == 0]
    shape = math.log(width / height)
    return min(grids, key=lambda grid: abs(shape - math.log(grid[0] / grid[1])))  # the first of equals


def fit(width: float, height: float, resolution: int, patch_size: int) -> Size:
    """Return the size in whole patches, of the same shape and about resolution x resolution pixels."""
    ratio = width / height
    new_height = int(resolution / math.sqrt(ratio))
    new_width = int(new_height * ratio)
    return _whole(new_width, patch_size), _whole(new_height, patch_size)


def slice_size(size: Size, slices: Slices, resolution: int, patch_size: int) -> Size:
    """Return the size of each slice; the picture is resized to columns x rows of them before it is cut."""
    (width, height), (columns, rows) = size, slices
    return fit(_whole(width, columns) / columns, _whole(height, rows) / rows, resolution, patch_size)


def _whole(length: float, unit: int) -> int:
    """Return the multiple of `unit` nearest to `length`, one at least."""
    return max(round(length / unit) * unit, unit)
