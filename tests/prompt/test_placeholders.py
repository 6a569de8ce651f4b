"""One placeholder per item becomes as many as its encoder emits."""

from __future__ import annotations

import pytest

from sensorium.errors import InvalidRequest
from sensorium.prompt.placeholders import check_counts, expand, order_in


def test_expand() -> None:
    ids = {"image": 9, "video": 8}
    assert expand([1, 9, 2, 8, 9, 3], ids, [("image", 3), ("video", 1), ("image", 2)]) == (
        [1, 9, 9, 9, 2, 8, 9, 9, 3],
        [1, 5, 6],
    )
    assert expand([1, 2], ids, []) == ([1, 2], [])
    assert expand([1, 9, 2], ids, [("image", [7, 9, 9, 6])]) == ([1, 7, 9, 9, 6, 2], [1])


def test_families_may_share_one_placeholder() -> None:
    assert expand([5, 5], {"image": 5, "video": 5}, [("video", 2), ("image", 1)]) == ([5, 5, 5], [0, 2])
    check_counts([5, 5], {"image": 5, "video": 5}, ["video", "image"], "messages")


@pytest.mark.parametrize(
    ("token_ids", "items", "words"),
    [
        ([9], [], "1 media placeholders, but 0"),
        ([1], [("image", 2)], "0 media placeholders, but 1"),
        ([9, 9, 9], [("image", 2)], "3 media placeholders, but 1"),
        ([9], [("video", 2)], "for image where media item 0 is video"),
    ],
)
def test_a_mismatch_has_both_numbers(token_ids: list[int], items: list[tuple[str, int]], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        expand(token_ids, {"image": 9, "video": 8}, items)


def test_check_counts() -> None:
    with pytest.raises(InvalidRequest, match="2 image placeholders, but 1 image items") as caught:
        check_counts([9, 9], {"image": 9}, ["image"], "prompt")
    assert caught.value.param == "prompt"


def test_items_in_the_order_of_their_places() -> None:
    literals = {"<i>": {"image"}, "<v>": {"video"}, "<x>": {"image", "video"}, "(<x>.)": {"video"}}

    def order(text: str, *kinds: str) -> list[int]:
        return order_in(text, literals, kinds)

    assert order("a<i>b<v><i>", "image", "image", "video") == [0, 2, 1]
    assert order("(<x>.)<x>", "image", "video") == [1, 0]  # the longer literal counts
    assert order("<x><x>", "video", "image") == [0, 1]
    assert order("<i>", "video", "image", "image") == [1, 0, 2]
    assert order_in("<i>", {}, ["image"]) == [0]
