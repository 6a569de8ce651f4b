"""One tiny checkpoint per family and layout, written once per session, and transformers' model of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from sensorium.families import find
from sensorium.families.checkpoint import FILES
from sensorium.families.checkpoint import Checkpoint as Files
from sensorium.families.family import Family, ImageProcessor
from sensorium.prompt.tokenizer import Tokenizer
from tests.checkpoints import Layout, make_checkpoint
from tests.families.parity import Note, Parity, write

Checkpoint = Callable[..., Path]
_NOTED: list[Note] = []


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """checkpoint("qwen2_vl") -> the folder."""

    @cache
    def build(family: str, layout: Layout = "hub") -> Path:
        path = tmp_path_factory.mktemp(f"{family}-{layout}")
        make_checkpoint(family, path, layout=layout)
        return path

    return build


def read_checkpoint(path: Path) -> Files:
    files = {name: json.loads((path / name).read_text()) for name in FILES if (path / name).exists()}
    return Files(read_config(path), files, Tokenizer.load(path).encode)


def image_processor(path: Path, family: Family | None = None) -> ImageProcessor:
    found = family or find(read_config(path))
    return cast(ImageProcessor, found.media["image"].processor(read_checkpoint(path)))


def read_config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    return config


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.inference_mode():
        yield


@pytest.fixture
def parity() -> Parity:
    """Takes notes for docs/families.md; see `tests.families.parity`."""
    return Parity()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed and isinstance(notes := item.funcargs.get("parity"), Parity):
        _NOTED.extend(notes.notes)
    return report


def pytest_sessionfinish() -> None:
    write(_NOTED)
