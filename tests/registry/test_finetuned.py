"""What ms-swift's fine-tuning leaves, read from folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import ConfigurationError
from sensorium.registry.finetuned import merged_folder, read_finetuned

ARGUMENTS = {
    "model_type": "qwen-vl-chat",
    "model_id_or_path": "qwen/Qwen-VL-Chat",
    "model_revision": "master",
    "template_type": "qwen-vl",
    "sft_type": "lora",
    "dtype": "bf16",
    "system": "You are a helpful assistant.",
    "quantization_bit": 0,
    "quant_method": None,
    "rope_scaling": None,
    "learning_rate": 0.0001,
}


def write(folder: Path, **files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_an_adapter_knows_its_base_and_its_training(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint-9", adapter_config={"base_model_name_or_path": "x"}, sft_args=ARGUMENTS)
    tuned = read_finetuned(folder)
    assert (tuned.folder, tuned.adapter, tuned.told) == (folder, True, True)
    assert (tuned.base, tuned.model_type, tuned.revision) == ("qwen/Qwen-VL-Chat", "qwen-vl-chat", "master")
    assert (tuned.dtype, tuned.system) == ("bf16", "You are a helpful assistant.")


def test_the_folder_it_was_trained_on_comes_before_the_hub(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    here = {"base_model_name_or_path": str(tmp_path / "base")}
    assert read_finetuned(write(tmp_path / "a", adapter_config=here, sft_args=ARGUMENTS)).base == str(tmp_path / "base")
    told = ARGUMENTS | {"model_id_or_path": str(tmp_path)}
    assert read_finetuned(write(tmp_path / "b", adapter_config=here, sft_args=told)).base == str(tmp_path)
    gone = {"base_model_name_or_path": "/gone/base"}
    assert read_finetuned(write(tmp_path / "c", adapter_config=gone, sft_args=ARGUMENTS)).base == "qwen/Qwen-VL-Chat"


def test_full_weights_with_the_options_of_merging(tmp_path: Path) -> None:
    adapter = read_finetuned(write(tmp_path / "checkpoint-9", adapter_config={}))
    assert merged_folder(adapter) is None
    folder = write(tmp_path / "checkpoint-9-merged", config={}, export_args=ARGUMENTS | {"dtype": "AUTO"})
    tuned = read_finetuned(folder)
    assert (tuned.adapter, tuned.dtype, tuned.model_type) == (False, None, "qwen-vl-chat")
    assert merged_folder(adapter) == folder


def test_sft_args_come_before_export_args(tmp_path: Path) -> None:
    folder = write(tmp_path, config={}, sft_args={"model_type": "a"}, export_args={"model_type": "b"})
    assert read_finetuned(folder).model_type == "a"


def test_a_folder_may_say_nothing(tmp_path: Path) -> None:
    write(tmp_path, adapter_config={"base_model_name_or_path": "org/base"}, sft_args=ARGUMENTS)
    tuned = read_finetuned(tmp_path, use_arguments=False)
    assert (tuned.base, tuned.model_type, tuned.system, tuned.told) == ("org/base", None, None, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantization_bit": 4}, r"quantized weights \(4 bits\)"),
        ({"quant_method": "bnb"}, r"quantized weights \(bnb\)"),
        ({"rope_scaling": "dynamic"}, "rope_scaling 'dynamic'"),
        ({"template_type": "default-generation"}, "template_type 'default-generation'.*its own, 'qwen-vl'"),
        ({"system": 5}, "system = 5; text is expected"),
    ],
)
def test_trainings_that_would_be_answered_differently(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    write(tmp_path, adapter_config={}, sft_args=ARGUMENTS | change)
    with pytest.raises(ConfigurationError, match=words):
        read_finetuned(tmp_path)


def test_folders_that_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-9").mkdir()
    with pytest.raises(ConfigurationError, match=r"no checkpoint folder .*holds: checkpoint-9\."):
        read_finetuned(tmp_path / "checkpoint-8")
    with pytest.raises(ConfigurationError, match=r"neither config\.json .* nor adapter_config\.json"):
        read_finetuned(tmp_path / "checkpoint-9")
    write(tmp_path, config={})
    (tmp_path / "sft_args.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"sft_args\.json is not readable JSON"):
        read_finetuned(tmp_path)
