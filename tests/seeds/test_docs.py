"""docs/seeds.md tells about every row, and says of none that it works without a test that has its number."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \| (00\d) \| .+ \| (.+) \|$", re.M)
STATES = {"works", "nothing to do"}


def rows() -> dict[int, str]:
    text = (HERE.parents[1] / "docs" / "seeds.md").read_text(encoding="utf-8")
    return {int(number): state for number, _, state in ROW.findall(text)}


def covered() -> set[int]:
    names = re.findall(r"^def test_rows?_(\w+)", "\n".join(f.read_text() for f in HERE.glob("test_*.py")), re.M)
    # Numbers at the start of a name: row_06, rows_11_and_12, row_05_and_06.
    heads = (re.match(r"\d\d(?:_and_\d\d)*", name) for name in names)
    return {int(number) for head in heads if head for number in head[0].split("_and_")}


def test_every_row_is_there_with_a_known_state() -> None:
    assert list(rows()) == list(range(1, 44))
    assert set(rows().values()) == STATES


def test_what_works_has_a_test_and_what_does_not_has_none() -> None:
    claimed = {number for number, state in rows().items() if state == "works"}
    assert claimed == covered()
