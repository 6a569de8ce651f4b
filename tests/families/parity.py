"""What the parity tests found out about each family: noted while they run, written to a file where one is asked for.

A test asks for the fixture `parity` and says what it is about:

    parity.close("llava", "image", found, wanted)                 # within 1e-4 of transformers
    parity.close("minicpm_v_2_6", "text", found, wanted, reference=AUTHORS)
    parity.holds("llava", "stream")                               # no numbers to compare

Only notes of tests that passed are kept. `make families` runs the tests so and writes docs/families.md from the notes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
import transformers

Claim = Literal["layout", "text", "image", "video", "audio", "several", "stream"]
FILE_VARIABLE = "SENSORIUM_PARITY_FILE"
TRANSFORMERS = f"transformers {transformers.__version__}"


@dataclass(frozen=True)
class Note:
    """One thing that held; `difference` is the largest between our logits and the reference's."""

    family: str
    claim: str
    reference: str = ""
    difference: float | None = None


@dataclass
class Parity:
    """The notes of one test."""

    notes: list[Note] = field(default_factory=list)

    def close(
        self,
        family: str,
        claim: Claim,
        found: torch.Tensor,
        wanted: torch.Tensor,
        *,
        reference: str = TRANSFORMERS,
        atol: float = 1e-4,
    ) -> None:
        """Assert that logits are equal but for `atol`, and note how far apart they are."""
        torch.testing.assert_close(found, wanted, atol=atol, rtol=0)
        self.notes.append(Note(family, claim, reference, float((found - wanted).abs().max())))

    def holds(self, family: str, claim: Claim, reference: str = "") -> None:
        """Note that a claim holds; call it behind the assertions."""
        self.notes.append(Note(family, claim, reference))


def write(notes: list[Note]) -> None:
    """Write the notes where the variable says; nothing where it is not set."""
    if path := os.environ.get(FILE_VARIABLE):
        Path(path).write_text(json.dumps([asdict(note) for note in notes]), encoding="utf-8")


def read(path: Path) -> list[Note]:
    """Return the notes in a file."""
    return [Note(**note) for note in json.loads(path.read_text(encoding="utf-8"))]
