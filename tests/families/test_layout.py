"""Which tokens of an item encoder rows are written over, however the item is cut."""

from __future__ import annotations

import pytest

from sensorium.families.layout import Layout

TOKENS = [1, 0, 0, 2, 0, 3, 3, 0, 0, 0, 4]


def test_slots_are_found_in_the_tokens() -> None:
    layout = Layout.of(TOKENS, 0, (1, 2, 3))
    assert layout.runs == ((1, 2), (4, 1), (7, 3))
    assert (layout.num_slots, layout.length, layout.grid) == (6, 11, (1, 2, 3))


@pytest.mark.parametrize("chunk", range(1, 12))
def test_chunks_cover_every_row_once(chunk: int) -> None:
    layout = Layout.of(TOKENS, 0)
    places: list[int] = []
    rows: list[int] = []
    for start in range(0, layout.length, chunk):
        where, taken = layout.slots(start, min(start + chunk, layout.length))
        assert len(where) == taken.stop - taken.start
        assert all(start <= place < start + chunk for place in where)
        places += where.tolist()
        rows += range(6)[taken]
    assert [TOKENS[place] for place in places] == [0] * 6
    assert rows == list(range(6))


def test_without_tokens_of_its_own_an_item_is_all_slots() -> None:
    layout = Layout((0, 0, 0), 5)
    where, rows = layout.slots(2, 4)
    assert (layout.length, where.tolist(), rows) == (5, [2, 3], slice(2, 4))
