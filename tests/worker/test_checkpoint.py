"""What every engine kind reads from a checkpoint: sampling defaults, and whose tokenizer and template count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import ConfigurationError
from sensorium.settings import EngineSettings
from sensorium.types import Message, Request, SamplingParams, Text
from sensorium.worker.checkpoint import sampling_defaults, template_folder, tokenizer_folder
from sensorium.worker.system_message import with_system

FILE = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "max_new_tokens": 512, "eos": 1}


def settings(**fields: Any) -> EngineSettings:
    return EngineSettings("m", **fields)


@pytest.mark.parametrize(
    ("generation", "fields", "expected"),
    [
        ({}, {}, {}),
        (
            FILE,
            {},
            {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "max_tokens": 512},
        ),
        (FILE | {"do_sample": True}, {"generation_config": "vllm"}, {}),
        (FILE | {"do_sample": False}, {}, {"temperature": 0.0, "repetition_penalty": 1.05, "max_tokens": 512}),
        ({"temperature": -1, "top_p": 0.5}, {}, {}),  # one value out of range: none is believed
        ({"temperature": "hot"}, {}, {}),
        (
            {"temperature": 0.7, "top_k": 20},
            {"override_generation_config": {"temperature": 0.1, "max_new_tokens": 9}},
            {"temperature": 0.1, "top_k": 20, "max_tokens": 9},
        ),
        (
            {"temperature": 0.7},
            {"override_generation_config": {"do_sample": False}},
            {"temperature": 0.0},
        ),
        (FILE, {"generation_config": "vllm", "override_generation_config": {"top_p": 0.4}}, {"top_p": 0.4}),
    ],
)
def test_sampling_defaults(generation: dict[str, Any], fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sampling_defaults(generation, settings(**fields)) == expected


def test_another_folders_file(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"top_k": 3}))
    assert sampling_defaults(FILE, settings(generation_config=str(tmp_path))) == {"top_k": 3}
    with pytest.raises(ConfigurationError, match=r"generation_config\.json is missing"):
        sampling_defaults(FILE, settings(generation_config=str(tmp_path / "none")))


@pytest.mark.parametrize("override", [{"temperature": -1}, {"temperature": "hot"}])
def test_a_wrong_override_is_an_error(override: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="override_generation_config: "):
        sampling_defaults({}, settings(override_generation_config=override))


def test_whose_tokenizer_and_template(tmp_path: Path) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    model.mkdir()
    other.mkdir()
    assert tokenizer_folder(model, settings()) == model
    assert tokenizer_folder(model, settings(tokenizer=str(other))) == other
    assert template_folder(model, other) == model
    (other / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert template_folder(model, other) == other
    with pytest.raises(ConfigurationError, match=r"There is no folder .* to take the tokenizer from"):
        tokenizer_folder(model, settings(tokenizer=str(tmp_path / "none")))


def test_the_system_message_of_conversations_that_bring_none() -> None:
    user, system = Message("user", (Text("hi"),)), Message("system", (Text("theirs"),))
    request = Request("1", SamplingParams(), messages=(user,))
    given = with_system(request, "ours").messages
    assert given == (Message("system", (Text("ours"),)), user)
    assert with_system(request, None) is request
    theirs = Request("1", SamplingParams(), messages=(system, user))
    assert with_system(theirs, "ours") is theirs
    raw = Request("1", SamplingParams(), prompt="hi")
    assert with_system(raw, "ours") is raw
