"""A real server, its registry on the disk, and `sensorium models` against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.running import Running, serve

ASK = [{"role": "user", "content": "What is this?"}]


def models(*line: str, url: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `sensorium models` as a user would."""
    environment = {**os.environ, "COLUMNS": "160", **variables}
    if url:
        environment["SENSORIUM_URL"] = url
    command = [sys.executable, "-m", "sensorium", "models", *line]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def said(*line: str, url: str = "", **variables: str) -> str:
    done = models(*line, url=url, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(running: Running, model: str) -> str:
    done = running.client().chat.completions.create(model=model, messages=ASK, max_tokens=4, temperature=0)  # type: ignore[arg-type]
    return str(done.choices[0].message.content)


def card(running: Running, alias: str) -> dict[str, Any]:
    return dict(httpx.get(f"{running.url}/v1/models/{alias}").json())


def test_registered_loaded_killed_and_there_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serve(["tiny-vl", "--dtype", "float32"], home) as running:
        url = running.url
        assert "Model org/eyes registered" in said("register", "org/eyes", "tiny-vl", "--idle_ttl", "1", url=url)
        again = models("register", "org/eyes", "tiny-vl", "--max-model-len=512", url=url)
        assert again.returncode == 1
        assert "max_model_len is None there and 512 here" in again.stderr
        table = said("list", url=url)
        assert [line.split()[:2] for line in table.splitlines() if "tiny-vl" in line] == [
            ["tiny-vl", "ready"],
            ["org/eyes", "registered"],
        ]
        assert answer(running, "org/eyes")
        assert card(running, "org/eyes")["state"] == "ready"
        assert "loading weights" in said("show", "org/eyes", url=url)
        running.until("the idle model is unloaded", lambda: card(running, "org/eyes")["state"] == "unloaded", 30)
        assert "is loaded" in said("load", "org/eyes", url=url)
        assert "is unloaded" in said("unload", "org/eyes", url=url)
        listed = json.loads(said("list", "--json", url=url))
        assert [model["id"] for model in listed] == ["tiny-vl", "org/eyes"]
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(10)
    with serve(["tiny-vl", "--dtype", "float32"], home) as running:
        assert card(running, "org/eyes")["registered"]["idle_ttl"] == 1.0
        assert answer(running, "org/eyes")
        assert "unregistered" in said("remove", "org/eyes", url=running.url)
        assert models("show", "org/eyes", url=running.url).returncode == 1
        assert models("remove", "tiny-vl", url=running.url).returncode == 1


def test_without_a_server_the_registry_itself_is_changed(tmp_path: Path) -> None:
    home = {"SENSORIUM_HOME": str(tmp_path / "home"), "SENSORIUM_REGISTRY": "", "SENSORIUM_URL": ""}
    home["SENSORIUM_PORT"] = "1"  # where nothing listens
    done = models("register", "eyes", "tiny-vl", **home)
    assert done.returncode == 0, done.stderr
    assert "No server answers at http://127.0.0.1:1; this is what is kept in" in done.stderr
    assert [model["id"] for model in json.loads(said("list", "--json", **home))] == ["eyes"]
    for line in (["load", "eyes"], ["list", "--url", "http://127.0.0.1:1"]):
        refused = models(*line, **home)
        assert refused.returncode == 2
        assert "Start one with `sensorium serve`" in refused.stderr
    with serve(["tiny-audio", "--no-preload"], tmp_path / "home") as running:
        assert card(running, "eyes")["state"] == "registered"
    assert "unregistered" in said("remove", "eyes", **home)


def test_a_file_of_models_alone(tmp_path: Path) -> None:
    file, home = tmp_path / "models.toml", tmp_path / "home"
    file.write_text("[models.eyes]\nmodel_name = 'tiny-vl'\n[models.two]\nmodel_name = 'tiny-vl'\nseed = 1\n")
    with serve(["--models", str(file)], home) as running:
        assert [model["id"] for model in httpx.get(f"{running.url}/v1/models").json()["data"]] == ["eyes", "two"]
        assert answer(running, "eyes")
        assert card(running, "eyes")["source"] == str(file)
    file.write_text("[models.two]\nmodel_name = 'tiny-vl'\nseed = 2\n")
    with serve(["--models", str(file)], home) as running:
        assert [model["id"] for model in httpx.get(f"{running.url}/v1/models").json()["data"]] == ["two"]
        assert card(running, "two")["registered"]["seed"] == 2
    file.write_text("[models.two]\nmodel_name = 'tiny-vl'\nseed = 'x'\n")
    line = [sys.executable, "-m", "sensorium", "serve", "--models", str(file), "--port", "0"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"{file}, [models.two]: `seed` must be an integer, not a string." in done.stderr
