from __future__ import annotations

from pathlib import Path

from sensorium.terminal.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_of_flags_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "write it again: python -m sensorium.terminal.reference > docs/cli.md"
    )
