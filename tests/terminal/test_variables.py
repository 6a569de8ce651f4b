"""Environment variables: our names, the other programs' names, and what is said about wrong values."""

from __future__ import annotations

from typing import Any

import click
import pytest

from sensorium.cli import _main, cli
from sensorium.environment import VARIABLES, flag, names
from sensorium.terminal import serve
from sensorium.terminal.arguments import normalise


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda *arguments: calls.append(arguments[:3]) or 0)
    for row in VARIABLES:
        for name in (row.name, *row.old):
            monkeypatch.delenv(name, raising=False)
    return calls


def every_command(group: click.Group) -> list[click.Command]:
    found: list[click.Command] = []
    for command in group.commands.values():
        found += [command, *(every_command(command) if isinstance(command, click.Group) else [])]
    return found


def run(line: str) -> int:
    return _main(normalise(line.split()))


def test_every_variable_is_read_by_an_option_under_all_its_names() -> None:
    read = {
        tuple(option.envvar if isinstance(option.envvar, list) else [option.envvar])
        for command in every_command(cli)
        for option in command.params
        if option.envvar
    }
    read_names = {name for group in read for name in group}
    assert {name for row in VARIABLES for name in (row.name, *row.old)} == read_names
    assert all(row.name.startswith("SENSORIUM_") for row in VARIABLES)


@pytest.mark.parametrize("name", names("SENSORIUM_IMAGE_FETCH_TIMEOUT"))
def test_timeouts_arrive(name: str, served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "100")
    monkeypatch.setenv("VLLM_ENGINE_ITERATION_TIMEOUT_S", "77")
    assert run("serve --video-fetch-timeout 3.5 --audio_fetch_timeout=4") == 0
    models, settings, _ = served[0]
    media = models["tiny-vl"].media
    assert media == settings.media
    assert (media.fetch_timeout_s, media.fetch_video_timeout_s, media.fetch_audio_timeout_s) == (100.0, 3.5, 4.0)
    assert settings.stalled_after_s == 77.0


def test_ours_comes_before_the_old_name_and_the_flag_before_both(
    served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "old")
    assert run("serve") == 0
    monkeypatch.setenv("SENSORIUM_API_KEY", "ours")
    assert run("serve") == 0
    assert run("serve --api-key given") == 0
    assert [settings.api_keys for _, settings, _ in served] == [("old",), ("ours",), ("given",)]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VLLM_IMAGE_FETCH_TIMEOUT", "soon", "VLLM_IMAGE_FETCH_TIMEOUT: 'soon' is no time; write seconds"),
        ("SENSORIUM_ENGINE_TIMEOUT", "0", "SENSORIUM_ENGINE_TIMEOUT: '0' is no time"),
        ("SENSORIUM_HUB", "github", "SENSORIUM_HUB: 'github' is not one of 'huggingface', 'modelscope'"),
        ("VLLM_LOGGING_LEVEL", "loud", "VLLM_LOGGING_LEVEL: 'loud' is not one of 'debug', 'info'"),
        ("VLLM_USE_MODELSCOPE", "perhaps", "VLLM_USE_MODELSCOPE is 'perhaps'; it must be one of 1, true"),
    ],
)
def test_wrong_values_name_the_variable(
    name: str,
    value: str,
    words: str,
    served: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert run("serve") == 2
    assert words in capsys.readouterr().err


def test_where_hub_ids_are_looked_up(served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ("serve a/b", "serve a/b --hub modelscope", "deploy --model_id_or_path a/b"):
        assert run(line) == 0
    monkeypatch.setenv("USE_HF", "1")
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    for line in ("serve a/b", "deploy --model_id_or_path a/b", "deploy --model_id_or_path a/b --hub modelscope"):
        assert run(line) == 0
    assert [models["a/b"].hub for models, *_ in served] == [
        *("huggingface", "modelscope", "modelscope"),
        *("modelscope", "huggingface", "modelscope"),
    ]


@pytest.mark.parametrize(("value", "meaning"), [("", None), ("1", True), ("TRUE", True), ("0", False), ("off", False)])
def test_yes_and_no(value: str, meaning: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_FLAG", value)
    assert flag("SOME_FLAG") is meaning
