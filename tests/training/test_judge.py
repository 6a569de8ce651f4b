"""What counts as the same answer in the accuracy tables."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from training import judge

FIRST = "The first picture shows a red star and a blue cross, the second one shows 2 pink crosses."
AGAIN = "The first picture shows a blue cross and a red star, the second one shows a pink cross and a pink cross."
APART = "The picture shows a red star, a blue cross and a red star."


def right(wanted: str, got: str) -> bool:
    return judge.right(SimpleNamespace(box=False, answer=wanted), got)[0]


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("The picture shows a red star and the number 12.", "the picture shows the number 12 and a red star"),
        (
            "The picture shows 2 red stars and a blue cross.",
            "The picture shows a red star, a blue cross and a red star.",
        ),
        ("白色背景上有一个橙色的长方形和2个橙色的椭圆形。", "白色背景上有2个橙色的椭圆形和一个橙色的长方形。"),
        ("The colors are red and gray.", "The colors are grey and red."),
        ("颜色有黄色和灰色。", "颜色有灰色、黄色。"),
        (
            FIRST,
            "The first picture shows a blue cross and a red star, the second one shows a pink cross and a pink cross.",
        ),
    ],
)
def test_lists_count_in_any_order(wanted: str, got: str) -> None:
    assert right(wanted, got)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("The picture shows a red star.", "The picture shows 2 red stars."),
        ("The picture shows a red star.", "The picture shows a red star and a red star."),
        ("The picture shows a red star on a blue background.", "The picture shows a red star on a red background."),
        ("The picture shows the number 12.", "The picture shows the number 21."),
        ("The colors are red and black.", "The colors are red, black and black."),
        ("There are 3 red stars in the picture.", "There are 2 red stars in the picture."),
        ("The red star is above the blue cross.", "The blue cross is above the red star."),
        ("图中有3个圆形。", "图中有2个圆形。"),
        (FIRST, "The first picture shows 2 pink crosses, the second one shows a red star and a blue cross."),
    ],
)
def test_another_meaning_is_wrong(wanted: str, got: str) -> None:
    assert not right(wanted, got)
