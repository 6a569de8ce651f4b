"""Names become folders: local ones, bundled ones, and models downloaded from a hub."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from sensorium.errors import ConfigurationError
from sensorium.registry import hub as module
from sensorium.registry.download import missing, wanted
from sensorium.registry.hub import resolve, rich_progress
from tests.registry.fake_hub import FakeHub, fake_hub

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"x": 1}',
    "merges.txt": b"a b",
    "model.safetensors": b"w" * 300_000,
    "pytorch_model.bin": b"p" * 400_000,
    "onnx/model.onnx": b"o" * 1000,
    "onnx/config.json": b"{}",
    "README.md": b"# hi",
    "picture.png": b"png",
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "home"))
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # The library read the variable when another test imported it.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub(dict(FILES)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_a_directory_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == tmp_path


def test_a_directory_without_a_model_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        ConfigurationError, match=r"no config\.json.*holds: inner/, notes\.txt\. Did you mean .*inner\?"
    ):
        resolve(str(tmp_path))


def test_a_name_that_is_nothing_gets_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "qwen2-vl").mkdir()
    with pytest.raises(ConfigurationError, match=r"Nearest: .*qwen2-vl"):
        resolve(str(tmp_path / "qwen2-v"))
    with pytest.raises(ConfigurationError, match=r"Nearest: .*tiny-vl"):
        resolve("tinyvl")
    with pytest.raises(ConfigurationError, match="not a hub id of the form"):
        resolve("a/b/c")


def test_bundled_models_are_found_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundled" / "tiny-vl").mkdir(parents=True)
    (tmp_path / "bundled" / "tiny-vl" / "config.json").write_text("{}")
    monkeypatch.setattr(module.resources, "files", lambda package: tmp_path)
    assert resolve("tiny-vl") == tmp_path / "bundled" / "tiny-vl"
    monkeypatch.setattr(module.resources, "files", lambda package: tmp_path / "other")
    with pytest.raises(ConfigurationError, match="install it again"):
        resolve("tiny-vl")


def test_download_takes_what_serving_needs(hub: FakeHub, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    folder = resolve("org/model", None, lambda phase, fraction: seen.append((phase, fraction)))
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert folder.is_relative_to(tmp_path / "home" / "hub")
    fractions = [fraction for _, fraction in seen]
    assert seen[0] == ("download", 0.0)
    assert seen[-1] == ("download", 1.0)
    assert fractions == sorted(fractions)
    assert any(0 < fraction <= 1 for fraction in fractions[1:-1])


def test_a_complete_copy_needs_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve("org/model")
    asked = len(hub.asked)
    assert resolve("org/model") == folder
    assert resolve("org/model", hub.commit) == folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve("org/model") == folder
    assert len(hub.asked) == asked


def test_a_partial_copy_is_completed(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = resolve("org/model") / "model.safetensors"
    blob = weights.resolve()
    weights.unlink()
    blob.unlink(missing_ok=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigurationError, match="only partly there: weights"):
        resolve("org/model")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert (resolve("org/model") / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_offline_and_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigurationError, match="Cannot reach the hub to download 'org/model': HF_HUB_OFFLINE is set"):
        resolve("org/model")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ConfigurationError, match=r"Cannot reach the hub .* does not answer \(ConnectError\)"):
            resolve("org/model")


@pytest.mark.parametrize(
    ("refuse", "words"),
    [
        ((401, "RepoNotFound"), "There is no model 'org/model' at http"),
        ((403, "GatedRepo"), "is gated. Accept its terms"),
        ((500, ""), "answered 500"),
    ],
)
def test_refusals_of_the_hub(hub: FakeHub, refuse: tuple[int, str], words: str) -> None:
    hub.refuse = refuse
    with pytest.raises(ConfigurationError, match=words):
        resolve("org/model")


def test_unknown_model_and_revision(hub: FakeHub) -> None:
    with pytest.raises(ConfigurationError, match="no model 'org/other'"):
        resolve("org/other")
    with pytest.raises(ConfigurationError, match="no revision 'v9'"):
        resolve("org/model", "v9")


def test_too_little_space_is_told_before_the_download(hub: FakeHub) -> None:
    hub.claimed_sizes = {"model.safetensors": 1 << 60}
    with pytest.raises(ConfigurationError, match=r"needs 1073741824\.0 GiB .* are free"):
        resolve("org/model")
    assert not any("resolve" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.bin", "pytorch_model.bin", "config.json"], ["config.json", "pytorch_model.bin"]),
        (["consolidated.safetensors", "model-1.safetensors"], ["model-1.safetensors"]),
        (["consolidated.safetensors"], ["consolidated.safetensors"]),
        (["vit/model.safetensors", "original/x.json", ".git.json"], ["vit/model.safetensors"]),
        (
            ["model.safetensors", "pytorch_model.bin", "vit/pytorch_model.bin"],
            ["model.safetensors", "vit/pytorch_model.bin"],
        ),
    ],
)
def test_wanted(names: list[str], expected: list[str]) -> None:
    assert wanted(names) == expected


def test_missing_reads_the_index(tmp_path: Path) -> None:
    assert missing(tmp_path) == ["config.json", "weights (*.safetensors)"]
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    assert missing(tmp_path) == ["model-2.safetensors"]


def test_rich_progress_shows_every_phase() -> None:
    output = io.StringIO()
    with rich_progress(Console(file=output, force_terminal=True, width=80)) as on_progress:
        on_progress("download", 0.25)
        on_progress("weights", 1.0)
    assert "download" in output.getvalue()
    assert "100%" in output.getvalue()
