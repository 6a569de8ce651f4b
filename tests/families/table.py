"""docs/families.md: what the parity tests say of every family. `make families` runs them and writes it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.families.parity import FILE_VARIABLE, Note, read

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "families.md"

# A family's module and the name people know it by. A new family is a row here; its tests fill the columns.
ROWS = {
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen2_audio": "Qwen2-Audio",
    "qwen_vl": "Qwen-VL, Qwen-VL-Chat",
    "llava": "LLaVA-1.5 (llava-hf)",
    "llava_llama": "LLaVA-1.5 (authors')",
    "yi_vl": "Yi-VL",
    "smolvlm": "SmolVLM, SmolVLM2",
    "internvl": "InternVL3 (-hf)",
    "internvl_chat": "InternVL 2, 2.5, 3 (authors')",
    "minicpm_v_2_5": "MiniCPM-Llama3-V 2.5",
    "minicpm_v_2_6": "MiniCPM-V 2.6",
    "minicpm_v_4_0": "MiniCPM-V 4.0",
    "qwen": "Qwen (text)",
    "qwen2": "Qwen2, Qwen2.5 (text)",
    "qwen3": "Qwen3 (text)",
    "llama": "Llama 2 and 3, Mistral (text)",
}
COLUMNS = {
    "layout": "official layout",
    "text": "text",
    "image": "picture",
    "video": "video",
    "audio": "sound",
    "several": "several items",
    "stream": "streamed",
}
_HEAD = f"""# Families, as the tests found them

Written by `make families` from what `tests/families` noted while it ran; a cell says yes only where a test ran and
passed. Every checkpoint is tiny and random, in fp32, in the layout its publishers use: real ones were never run here.

- *official layout*: read from the published tensor names and files.
- *text*, *picture*, *video*, *sound*: the logits of every position of a prompt without media, or with one item of that
  kind, equal the reference's within 1e-4; the number is the largest difference seen.
- *several items*: the same with two or more in one prompt.
- *streamed*: through the whole way of a request, the streamed pieces are the answer in one piece.
- `-`: the family does not take that. **no**: no test says so yet.

| family | module | {" | ".join(COLUMNS.values())} | reference |
|---|---|{"---|" * len(COLUMNS)}---|
"""
_TAIL = """
## What a new family takes

One file in `src/sensorium/families/`, its rows in `families/__init__.py` (architecture, kinds of media), one row in
`tests/families/table.py`, and tests that call `parity.close` and `parity.holds`. SmolVLM, added last to see whether
that is true, took a file of 232 lines (tiles, wording, names, sizes), two rows there and one here. Its tower needed
four flags in the shared `model/encoders/tile_vit.py` (42 lines more, 16 less): no class token, positions found by
rounding, a norm at the end, one linear layer as projector. Engine, scheduler, server and prompt code were not
touched. Videos of SmolVLM2 are not served: their prompts tell the number of frames in words and the time of each,
which is not written yet.
"""


def render(notes: Sequence[Note]) -> str:
    """Return the document for these notes."""
    return _HEAD + "".join(_row(module, title, notes) for module, title in ROWS.items()) + _TAIL


def _row(module: str, title: str, notes: Sequence[Note]) -> str:
    own = [note for note in notes if note.family == module]
    takes = {"layout", "text", "stream", *import_module(f"sensorium.families.{module}").FAMILY.media}
    takes |= {"several"} if len(takes) > 3 else set()
    cells = [_cell([note for note in own if note.claim == claim], claim in takes) for claim in COLUMNS]
    references = dict.fromkeys(note.reference for note in own if note.reference)
    return f"| {title} | `{module}` | {' | '.join(cells)} | {', '.join(references) or '-'} |\n"


def _cell(notes: Sequence[Note], taken: bool) -> str:
    if not taken:
        return "-"
    if not notes:
        return "**no**"
    differences = [note.difference for note in notes if note.difference is not None]
    return f"{max(differences):.0e}" if differences else "yes"


def main() -> int:
    """Run the tests and write the document; nothing is written where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "notes.json"
        command = [sys.executable, "-m", "pytest", "-q", "tests/families", *sys.argv[1:]]
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, FILE_VARIABLE: str(file)}, check=False).returncode
        if status:
            print(f"The tests did not pass; {DOCUMENT} is as it was.", file=sys.stderr)
            return status
        DOCUMENT.write_text(render(read(file)), encoding="utf-8")
    print(f"Wrote {DOCUMENT.relative_to(ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
