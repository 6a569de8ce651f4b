"""`python -m sensorium.start_server`: rtp-llm's variables and flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.cli import _main
from sensorium.environment import VARIABLES
from sensorium.terminal import serve, start_server
from sensorium.terminal.adapters import Adapter
from sensorium.terminal.arguments import normalise


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(serve, "serve", lambda *arguments: calls.append(arguments[:3]) or 0)
    for row in VARIABLES:
        for name in (row.name, *row.old):
            monkeypatch.delenv(name, raising=False)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"architectures": ["QWenLMHeadModel"]}))
    return tmp_path / "model"


def run(line: str = "", **variables: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return _main(normalise(["start-server", *line.split()]))


def test_the_variables_of_the_document(served: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {"TOKENIZER_PATH": str(folder), "CHECKPOINT_PATH": str(folder)}
    assert run(MODEL_TYPE="qwen_vl", FT_SERVER_TEST="1", **paths) == 0
    models, settings, _ = served[0]
    assert list(models) == ["qwen_vl", str(folder)]
    model = models["qwen_vl"]
    assert models[str(folder)] is model
    assert (model.model, model.name, model.tokenizer, model.dtype) == (str(folder), "qwen_vl", None, "auto")
    assert (settings.host, settings.port) == ("127.0.0.1", 8088)
    assert capsys.readouterr().err == "Without effect here: FT_SERVER_TEST (the log is on the terminal always).\n"


def test_the_other_variables_and_our_names_before_them(served: list[Any], folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").write_text("{}")
    other = tmp_path / "tokenizer"
    other.mkdir()
    variables = {
        "SENSORIUM_CHECKPOINT_PATH": str(folder),
        "CHECKPOINT_PATH": "/not/this",
        "TOKENIZER_PATH": str(other),
        "START_PORT": "9001",
        "MAX_SEQ_LEN": "512",
        "ACT_TYPE": "BF16",
        "WEIGHT_TYPE": "FP16",
        "TP_SIZE": "1",
        "WORLD_SIZE": "1",
        "CONCURRENCY_LIMIT": "32",
        "GENERATION_CONFIG_PATH": str(folder),
    }
    assert run(**variables) == 0
    models, settings, _ = served[0]
    model = models[str(folder)]
    assert (model.tokenizer, model.max_model_len, model.dtype) == (str(other), 512, "bfloat16")
    assert model.generation_config == str(folder)
    assert (settings.port, settings.max_queued) == (9001, 32)
    assert run("--start_port 9002 --max_seq_len 0 --act_type fp32", **variables) == 0
    models, settings, _ = served[1]
    assert (settings.port, models[str(folder)].dtype) == (9002, "float32")
    assert models[str(folder)].max_model_len is None


def test_adapters_are_handed_over(served: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(
        start_server, "with_adapters", lambda settings, *rest, **more: found.append((rest, more)) or settings
    )
    assert run(CHECKPOINT_PATH=str(folder), LORA_INFO='{"a": "/x", "b": "/y"}') == 0
    assert found == [(((Adapter("a", "/x"), Adapter("b", "/y")),), {"merge": False})]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "set CHECKPOINT_PATH to the model's folder"),
        ({"MODEL_TYPE": "qwen_vll"}, "MODEL_TYPE: 'qwen_vll' is not one of 'qwen_vl', 'llava'"),
        ({"MODEL_TYPE": "llava"}, "is QWenLMHeadModel, but MODEL_TYPE llava means LlavaLlamaForCausalLM or"),
        ({"TOKENIZER_PATH": "/no/such"}, "there is no folder '/no/such' to take the tokenizer from"),
        ({"START_PORT": "many"}, "START_PORT: 'many'"),
        ({"TP_SIZE": "2"}, "TP_SIZE: 2 is not in the range"),
        ({"WEIGHT_TYPE": "INT8"}, "WEIGHT_TYPE: 'INT8' is not one of 'auto', 'bfloat16'"),
        ({"LORA_INFO": "[]"}, "LORA_INFO is '[]'; it must be JSON"),
        ({"PTUNING_PATH": "/x"}, "PTUNING_PATH is set and cannot be served"),
        ({"GENERATION_CONFIG_PATH": "/x"}, "GENERATION_CONFIG_PATH: '/x' is neither auto nor vllm"),
    ],
)
def test_wrong_variables_are_named(
    variables: dict[str, str], words: str, served: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"CHECKPOINT_PATH": str(folder)} | variables if variables else {}
    assert run(**given) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not served
