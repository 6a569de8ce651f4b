"""Stop strings are found whatever the pieces, and nothing of one is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.output.stops import StopMatcher

letters = st.text("abc\n", max_size=14)


def stream(stops: list[str], include: bool, pieces: list[str]) -> tuple[str, str | None]:
    matcher, shown = StopMatcher(stops, include), ""
    for piece in pieces:
        text, hit = matcher.push(piece)
        shown += text
        if hit is not None:
            return shown, hit
    return shown + matcher.flush(), None


def whole(stops: list[str], include: bool, text: str) -> tuple[str, str | None]:
    """The definition: the stop string that is complete first; of two that end together, the longer."""
    found = [(text.find(s) + len(s), text.find(s), s) for s in stops if s in text]
    if not found:
        return text, None
    end, start, stop = min(found)
    return text[: end if include else start], stop


@given(
    stops=st.lists(st.text("abc\n", min_size=1, max_size=5), max_size=4),
    include=st.booleans(),
    pieces=st.lists(letters),
)
def test_the_pieces_do_not_matter(stops: list[str], include: bool, pieces: list[str]) -> None:
    assert stream(stops, include, pieces) == whole(stops, include, "".join(pieces))


@given(stops=st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3), text=st.text("ab", max_size=20))
def test_only_the_longest_possible_beginning_is_held(stops: list[str], text: str) -> None:
    matcher, shown = StopMatcher(stops, False), ""
    for character in text:
        new, hit = matcher.push(character)
        shown += new
        if hit is not None:
            return
        seen = text[: len(shown) + len(matcher._held)]
        longest = max(n for n in range(len(seen) + 1) if any(s.startswith(seen[len(seen) - n :]) for s in stops))
        assert len(shown) == len(seen) - longest


@pytest.mark.parametrize(
    ("stops", "include", "pieces", "expected"),
    [
        ([], False, ["a", "b"], ("ab", None)),
        (["\nUser:"], False, ["Hi\n", "Us", "er", ": x"], ("Hi", "\nUser:")),
        (["\nUser:"], True, ["Hi\n", "Us", "er", ": x"], ("Hi\nUser:", "\nUser:")),
        (["\nUser:"], False, ["Hi\n", "Us"], ("Hi\nUs", None)),
        (["。"], False, ["好", "。再"], ("好", "。")),
        (["ab", "b"], False, ["xab"], ("x", "ab")),
        (["]^-\\"], False, ["a]", "^-", "\\b"], ("a", "]^-\\")),
    ],
)
def test_examples(stops: list[str], include: bool, pieces: list[str], expected: tuple[str, str | None]) -> None:
    assert stream(stops, include, pieces) == expected
