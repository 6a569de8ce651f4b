"""The Python snippets of docs/python.md run as they stand, and say what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.running import Running, serve

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE | re.DOTALL)
SHAPES = "The picture shows a red circle, a green triangle and a blue square."
COUNT = "There are 3 shapes in the picture."


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve([], tmp_path_factory.mktemp("home")) as started:
        yield started


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_three_snippets() -> None:
    assert len(BLOCKS) == 3


def test_llm() -> None:
    assert run(BLOCKS[0]).splitlines() == [SHAPES, COUNT]


def test_pipeline() -> None:
    assert run(BLOCKS[1]).splitlines()[-1] == repr([SHAPES])


def test_client(running: Running) -> None:
    assert BLOCKS[2].count('"8000"') == 3
    assert run(BLOCKS[2].replace('"8000"', repr(str(urlsplit(running.url).port)))) == COUNT
