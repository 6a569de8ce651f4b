"""The table of families: who is in it, and what it takes to say yes."""

from __future__ import annotations

import pytest
import torch

from sensorium.families import MODULES
from tests.families.parity import TRANSFORMERS, Note, Parity
from tests.families.table import COLUMNS, DOCUMENT, ROWS, render


def test_every_family_has_a_row_here_and_in_the_document() -> None:
    assert set(ROWS) == set(MODULES.values())
    rows = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| ") and "`" in line]
    written = [line.split("`")[1] for line in rows]
    assert written == list(ROWS), "run `make families`"


def test_only_what_a_test_noted_is_said() -> None:
    notes = [
        Note("llava", "text", TRANSFORMERS, 2e-6),
        Note("llava", "image", TRANSFORMERS, 3e-6),
        Note("llava", "image", TRANSFORMERS, 7.4e-6),
        Note("llava", "stream"),
    ]
    rows = {line.split("`")[1]: line for line in render(notes).splitlines() if line.startswith("| ") and "`" in line}
    assert rows["llava"].split(" | ")[2:] == [
        "**no**",
        "2e-06",
        "7e-06",
        "-",
        "-",
        "**no**",
        "yes",
        f"{TRANSFORMERS} |",
    ]
    assert rows["qwen3"].split(" | ")[2:] == ["**no**", "**no**", "-", "-", "-", "-", "**no**", "- |"]
    assert len(COLUMNS) == 7


def test_what_is_not_close_is_not_noted() -> None:
    parity = Parity()
    with pytest.raises(AssertionError):
        parity.close("llava", "text", torch.zeros(2), torch.tensor([0.0, 2e-4]))
    assert parity.notes == []
    parity.close("llava", "text", torch.zeros(2), torch.tensor([0.0, 5e-5]))
    assert parity.notes == [Note("llava", "text", TRANSFORMERS, pytest.approx(5e-5))]  # type: ignore[arg-type]
