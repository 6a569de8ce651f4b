from __future__ import annotations

import json
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium.registry.hub import resolve
from sensorium.upstream.weights_files import check_weights


def write(path: Path, size: int = 16, cut: int = 0) -> None:
    head = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    data = len(head).to_bytes(8, "little") + head + bytes(size)
    path.write_bytes(data[: len(data) - cut])


def test_whole_ones() -> None:
    check_weights(resolve("tiny-vl"))


def test_nothing_to_look_at(tmp_path: Path) -> None:
    check_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "says it is 0 bytes long, and the file has 0"),
        (b"\xff" * 64, "is damaged: its header says"),
        ((9).to_bytes(8, "little") + b"not json!", "header cannot be read"),
    ],
)
def test_damaged_ones(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        check_weights(tmp_path)


def test_truncated_and_missing_ones(tmp_path: Path) -> None:
    write(tmp_path / "one.safetensors")
    check_weights(tmp_path)
    write(tmp_path / "one.safetensors", cut=5)
    with pytest.raises(ConfigurationError, match=r"one.safetensors is truncated: its tensors need \d+ bytes"):
        check_weights(tmp_path)
    write(tmp_path / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigurationError, match=r"lacks two.safetensors \(1 of 2"):
        check_weights(tmp_path)
