"""Models from ModelScope, asked for over its file API."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sensorium.errors import ConfigurationError
from sensorium.registry.hub import resolve
from sensorium.registry.modelscope import ENDPOINT, _endpoint
from tests.registry.fake_modelscope import FakeModelScope, fake_modelscope

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"x": 1}',
    "qwen.tiktoken": b"IQ== 0",
    "model.safetensors": bytes(range(256)) * 1200,
    "inner/model.safetensors": b"w" * 3000,
    "pytorch_model.bin": b"p" * 400_000,
    "README.md": b"# hi",
}
WANTED = ["config.json", "inner/model.safetensors", "model.safetensors", "qwen.tiktoken", "tokenizer.json"]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "home"))
    for name in ("HF_HUB_OFFLINE", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModelScope]:
    with fake_modelscope(dict(FILES)) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        yield server


def load(model: str = "org/model", revision: str | None = None) -> Path:
    return resolve(model, revision, hub="modelscope")


def test_download_takes_what_serving_needs(hub: FakeModelScope, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    folder = resolve("org/model", None, lambda phase, fraction: seen.append((phase, fraction)), "modelscope")
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == sorted(
        [".complete", *WANTED]
    )
    assert all((folder / name).read_bytes() == FILES[name] for name in WANTED)
    assert folder.is_relative_to(tmp_path / "home" / "hub")
    fractions = [fraction for _, fraction in seen]
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)


def test_a_complete_copy_needs_no_network(hub: FakeModelScope, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = load()
    asked = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load() == load(revision="master") == folder
    assert len(hub.asked) == asked


def test_a_broken_connection_goes_on_where_it_broke(hub: FakeModelScope) -> None:
    hub.files = {"config.json": b"{}", "model.safetensors": FILES["model.safetensors"]}
    hub.breaks_after = 10_000
    assert (load() / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.ranges == ["", "", "bytes=10000-"]


def test_one_model_asked_for_many_times_at_once_is_downloaded_once(hub: FakeModelScope) -> None:
    hub.slowly = 0.05
    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(lambda _: load(), range(4)))
    assert len(set(folders)) == 1
    assert all((folders[0] / name).read_bytes() == FILES[name] for name in WANTED)
    assert len(hub.ranges) == len(WANTED)


def test_the_token_is_shown_to_modelscope_only(hub: FakeModelScope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "secret")
    with fake_modelscope(dict(FILES)) as store:
        hub.elsewhere = store
        assert (load() / "model.safetensors").read_bytes() == FILES["model.safetensors"]
        assert len(store.tokens) == len(WANTED)
        assert set(store.tokens) == {""}
    assert set(hub.tokens) == {"Bearer secret"}


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        ({"Sha256": "0" * 64}, r"model\.safetensors of 'org/model' came damaged"),
        ({"Size": 1 << 60}, r"needs 1073741824\.0 GiB .* are free"),
        ({"Size": 299_999}, "came damaged"),
    ],
)
def test_files_are_held_to_the_listing(hub: FakeModelScope, claimed: dict[str, object], words: str) -> None:
    hub.claimed = {"model.safetensors": claimed}
    with pytest.raises(ConfigurationError, match=words):
        load()


@pytest.mark.parametrize("name", ["../outside.json", "/etc/outside.json", "a/../../outside.json"])
def test_no_file_is_written_outside_the_folder(hub: FakeModelScope, name: str) -> None:
    hub.files = {"config.json": b"{}", "model.safetensors": b"w", name: b"{}"}
    with pytest.raises(ConfigurationError, match="outside its folder"):
        load()


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "no model 'org/model' with revision 'master'"), (403, "Set MODELSCOPE_API_TOKEN"), (500, "answered 500")],
)
def test_refusals(hub: FakeModelScope, status: int, words: str) -> None:
    hub.refuse = status
    with pytest.raises(ConfigurationError, match=words):
        load()


def test_what_is_not_there(hub: FakeModelScope) -> None:
    with pytest.raises(ConfigurationError, match="no model 'org/other' with revision 'master'"):
        load("org/other")
    with pytest.raises(ConfigurationError, match="revision 'v9'"):
        load(revision="v9")
    hub.body = b"<html>a login page</html>"
    with pytest.raises(ConfigurationError, match=r"does not answer like ModelScope .*a login page"):
        load()
    hub.body = b'{"Code": 404, "Success": false}'
    with pytest.raises(ConfigurationError, match="There is no model"):
        load()


def test_offline_and_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigurationError, match=r"Cannot reach ModelScope .*HF_HUB_OFFLINE is set"):
        load()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ConfigurationError, match=r"Cannot reach ModelScope .* does not answer .*USE_HF=1"):
            load()


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, ENDPOINT),
        ({"MODELSCOPE_DOMAIN": "www.modelscope.ai"}, "https://www.modelscope.ai"),
        ({"MODELSCOPE_ENDPOINT": "http://mirror/", "MODELSCOPE_DOMAIN": "x"}, "http://mirror"),
    ],
)
def test_the_endpoint(variables: dict[str, str], endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _endpoint() == endpoint


def test_a_file_that_came_whole_before_it_was_checked_is_not_asked_for_again(hub: FakeModelScope) -> None:
    hub.files = {"config.json": b"{}", "model.safetensors": FILES["model.safetensors"]}
    folder = load()
    (folder / ".complete").unlink()  # the program was ended while it computed the digest
    (folder / "model.safetensors").rename(folder / "model.safetensors.part")
    hub.ranges.clear()
    assert (load() / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.ranges == []
