"""How much of a batch a tower takes at once.

Frames, tiles and slices do not see each other. One layer over all frames of a long video takes seconds, in which
nobody else is given a token, and gigabytes; over a portion of them it takes what it takes for a large picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MOST_ROWS = 4096  # as in `EngineLimits.max_encoder_patches`, which bounds a batch of several items


def portions(rows: Sequence[int]) -> Iterator[slice]:
    """Yield slices that together are all of `rows`: each of one entry at least, and of more while their sum fits."""
    start = total = 0
    for index, count in enumerate(rows):
        if index > start and total + count > MOST_ROWS:
            yield slice(start, index)
            start, total = index, 0
        total += count
    if start < len(rows):
        yield slice(start, len(rows))
