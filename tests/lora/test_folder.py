"""Which base an adapter's folder names, as PEFT and ms-swift wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import ConfigurationError
from sensorium.lora.config import LoraConfig, read_config
from sensorium.lora.folder import base_of, is_adapter, merged_path


def folder(path: Path, base: str | None, **notes: dict[str, Any]) -> str:
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps({"r": 4, "base_model_name_or_path": base}))
    for name, content in notes.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return str(path)


def test_a_folder_that_is_there_comes_first(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    here = str(tmp_path / "here")
    assert base_of(folder(tmp_path / "a", here, sft_args={"model_id_or_path": "qwen/Qwen-VL-Chat"})) == here
    assert base_of(folder(tmp_path / "b", "/gone", sft_args={"model_id_or_path": here})) == here
    assert (
        base_of(folder(tmp_path / "c", "/gone", args={"model": "Qwen/Qwen2-VL-2B-Instruct", "model_dir": here})) == here
    )


def test_else_the_hubs_id(tmp_path: Path) -> None:
    assert base_of(folder(tmp_path / "a", "Qwen/Qwen3-4B")) == "Qwen/Qwen3-4B"
    gone = "/gone/modelscope/hub/qwen/Qwen-VL-Chat"
    assert (
        base_of(folder(tmp_path / "b", gone, sft_args={"model_id_or_path": "qwen/Qwen-VL-Chat"})) == "qwen/Qwen-VL-Chat"
    )


def test_else_the_error_says_what_to_do(tmp_path: Path) -> None:
    adapter = folder(tmp_path / "a", "/gone/away")
    with pytest.raises(ConfigurationError, match=f"'/gone/away'.*--lora-modules default-lora={adapter}"):
        base_of(adapter)
    with pytest.raises(ConfigurationError, match="no base model"):
        base_of(folder(tmp_path / "b", None))


def test_what_is_an_adapter(tmp_path: Path) -> None:
    adapter = folder(tmp_path / "a", None)
    assert is_adapter(adapter)
    assert not is_adapter(str(tmp_path))
    assert not is_adapter("tiny-vl")
    (tmp_path / "a" / "config.json").write_text("{}")  # a merged model that kept its notes
    assert not is_adapter(adapter)
    assert merged_path(adapter + "/") == tmp_path / "a-merged"


def test_scales() -> None:
    config = LoraConfig(16, 32, rank_pattern=(("q_proj", 4),), alpha_pattern=((r"layers\.1\..*", 8),))
    assert config.scale("model.layers.0.mlp.up_proj") == 2
    assert config.scale("model.layers.0.self_attn.q_proj") == 8
    assert config.scale("model.layers.1.self_attn.q_proj") == 2
    assert config.scale("model.layers.11.self_attn.my_q_proj") == 2
    assert LoraConfig(16, 32, use_rslora=True).scale("x") == 8


def test_patterns_that_are_none_are_refused(tmp_path: Path) -> None:
    adapter = Path(folder(tmp_path / "a", None))
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 4, "alpha_pattern": {"(": 3}}))
    with pytest.raises(ConfigurationError, match="one of its numbers or patterns is none"):
        read_config(adapter)


@pytest.mark.parametrize(
    "wrong",
    [
        '{"r": 4, "lora_alpha": NaN}',
        '{"r": 4, "lora_alpha": Infinity}',
        '{"r": Infinity}',
        '{"r": 4, "alpha_pattern": {"q_proj": NaN}}',
        '{"r": 4, "rank_pattern": {"q_proj": Infinity}}',
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "adapter_config.json").write_text(wrong)
    with pytest.raises(ConfigurationError, match="one of its numbers or patterns is none"):
        read_config(tmp_path)
