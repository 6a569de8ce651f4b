"""`sensorium deploy`: what swift's options come to, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.cli import _main
from sensorium.registry.model_types import MODEL_TYPES
from sensorium.settings import EngineSettings, ServerSettings
from sensorium.terminal import deploy, serve
from sensorium.terminal.adapters import Adapter
from sensorium.terminal.arguments import normalise

QWEN_VL = {"architectures": ["QWenLMHeadModel"]}
ARGUMENTS = {"model_type": "qwen-vl-chat", "model_id_or_path": "qwen/Qwen-VL-Chat", "model_revision": "master"}


class Served:
    """What the last command would have served."""

    def __init__(self) -> None:
        self.models: dict[str, EngineSettings] = {}
        self.settings = ServerSettings()
        self.adapters: tuple[Adapter, ...] = ()
        self.merge = False

    @property
    def model(self) -> EngineSettings:
        return next(iter(self.models.values()))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    found = Served()

    def record(
        models: dict[str, EngineSettings], settings: ServerSettings, log_level: str, on_demand: tuple[str, ...]
    ) -> int:
        found.models, found.settings = models, settings
        return 0

    def attach(settings: EngineSettings, adapters: tuple[Adapter, ...], *, merge: bool) -> EngineSettings:
        found.adapters, found.merge = adapters, merge
        return settings

    monkeypatch.setattr(serve, "serve", record)
    monkeypatch.setattr(deploy, "with_adapters", attach)
    for name in ("USE_HF", "SENSORIUM_HUB"):
        monkeypatch.delenv(name, raising=False)
    return found


def run(line: str) -> int:
    return _main(normalise(["deploy", *line.split()]))


def checkpoint(folder: Path, **files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_a_model_type_is_a_hub_id(name: str, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(f"--model_type {name}") == 0
    assert list(served.models) == [name]
    assert (served.model.model, served.model.hub) == (MODEL_TYPES[name].modelscope, "modelscope")
    assert (served.settings.host, served.settings.port, served.model.name) == ("127.0.0.1", 8000, name)
    monkeypatch.setenv("USE_HF", "1")
    assert run(f"--model_type {name}") == 0
    assert (served.model.model, served.model.hub) == (MODEL_TYPES[name].huggingface, "huggingface")


def test_a_model_type_with_weights_of_this_machine(served: Served, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "weights", config=QWEN_VL)
    assert run(f"--model_type qwen-vl-chat --model_id_or_path {folder}") == 0
    assert list(served.models) == ["qwen-vl-chat"]
    assert (served.model.model, served.adapters) == (str(folder), ())


@pytest.mark.parametrize(
    ("given", "name"), [("qwen/qwen-vl-chat", "qwen-vl-chat"), ("01-ai/Yi-VL-6B", "yi-vl-6b-chat"), ("a/b", "a/b")]
)
def test_a_hub_id_gets_the_name_of_its_type(given: str, name: str, served: Served) -> None:
    assert run(f"--model_id_or_path {given} --model_revision v2") == 0
    assert list(served.models) == [name]
    assert (served.model.model, served.model.revision) == (given, "v2")


def test_the_servers_options(served: Served) -> None:
    line = """--model_type internvl2-2b --host 0.0.0.0 --port 9000 --api_key k --served_model_name a
        --max_model_len 512 --dtype bf16 --seed 42 --limit_mm_per_prompt {"image":3} --max_num_seqs 7
        --infer_backend vllm --template_type internvl2 --temperature 0.3 --top_k 5 --top_p 0.9
        --repetition_penalty 1.1 --max_new_tokens 64 --system Be_brief."""
    assert run(line) == 0
    assert (served.settings.host, served.settings.port, served.settings.api_keys) == ("0.0.0.0", 9000, ("k",))
    assert list(served.models) == ["a"]
    model = served.model
    assert (model.max_model_len, model.dtype, model.seed, model.max_num_seqs) == (512, "bfloat16", 42, 7)
    assert (model.limit_mm_per_prompt, model.system) == ({"image": 3}, "Be_brief.")
    assert model.override_generation_config == {
        "temperature": 0.3, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.1, "max_new_tokens": 64,
    }  # fmt: skip


def test_an_adapter_stands_on_what_it_was_trained_on(served: Served, tmp_path: Path) -> None:
    folder = checkpoint(
        tmp_path / "checkpoint-9", adapter_config={}, sft_args=ARGUMENTS | {"dtype": "bf16", "system": "Be brief."}
    )
    assert run(f"--ckpt_dir {folder}") == 0
    assert list(served.models) == ["qwen-vl-chat"]
    model = served.model
    assert (model.model, model.hub, model.revision) == ("qwen/Qwen-VL-Chat", "modelscope", None)
    assert (model.dtype, model.system) == ("bfloat16", "Be brief.")
    assert served.adapters == (Adapter("default-lora", str(folder)),)
    assert served.merge is False
    assert run(f"--ckpt_dir {folder} --merge_lora true --dtype fp16 --system Other") == 0
    assert (served.merge, served.model.dtype, served.model.system) == (True, "float16", "Other")


def test_an_adapter_on_hugging_face_or_on_weights_of_this_machine(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "checkpoint-9", adapter_config={}, sft_args=ARGUMENTS)
    weights = checkpoint(tmp_path / "weights", config=QWEN_VL)
    assert run(f"--ckpt_dir {folder} --model_id_or_path {weights}") == 0
    assert (served.model.model, served.adapters[0].name) == (str(weights), "default-lora")
    monkeypatch.setenv("USE_HF", "1")
    assert run(f"--ckpt_dir {folder}") == 0
    assert served.model.model == "Qwen/Qwen-VL-Chat"


def test_an_adapter_that_says_nothing_needs_a_model_type(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(tmp_path / "checkpoint-9", adapter_config={})
    assert run(f"--ckpt_dir {folder}") == 2
    assert "does not say what it was trained on; give --model_type" in capsys.readouterr().err
    assert run(f"--ckpt_dir {folder} --model_type qwen-vl-chat") == 0
    assert served.model.model == "qwen/Qwen-VL-Chat"


def test_merged_weights(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = checkpoint(tmp_path / "checkpoint-9", adapter_config={}, sft_args=ARGUMENTS)
    merged = checkpoint(tmp_path / "checkpoint-9-merged", config=QWEN_VL, sft_args=ARGUMENTS)
    assert run(f"--ckpt_dir {merged}") == 0
    assert (served.model.model, list(served.models), served.adapters) == (str(merged), ["qwen-vl-chat"], ())
    assert run(f"--ckpt_dir {adapter} --merge_lora") == 0
    assert (served.model.model, served.adapters, served.merge) == (str(merged), (), False)
    assert "is there already and is served" in capsys.readouterr().err
    assert run(f"--ckpt_dir {merged} --merge_lora true --model_id_or_path org/other") == 0
    said = capsys.readouterr().err
    assert "there is no adapter in --ckpt_dir" in said
    assert "org/other" in said


def test_the_options_of_the_training_may_be_left_unread(served: Served, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "weights", config=QWEN_VL, sft_args=ARGUMENTS | {"system": "Be brief."})
    assert run(f"--ckpt_dir {folder} --load_args_from_ckpt_dir false") == 0
    assert (served.model.system, list(served.models)) == (None, [str(folder)])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "say what to serve: --model_type (qwen-vl-chat, yi-vl-6b-chat"),
        ("--model_type qwen-vl-cha", "Did you mean 'qwen-vl-chat'? Known: qwen-vl-chat, yi-vl-6b-chat"),
        ("--model_type internvl2-2b --model_id_or_path {weights}", "is QWenLMHeadModel, but --model_type internvl2-2b"),
        ("--model_id_or_path {adapter}", "holds an adapter; give it as --ckpt_dir"),
        ("--ckpt_dir {adapter} --model_type internvl2-2b", "was trained as 'qwen-vl-chat'"),
        ("--ckpt_dir {weights}/none", "There is no checkpoint folder"),
        ("--model_type qwen-vl-chat --template_type default", "qwen-vl-chat has 'qwen-vl'"),
        ("--model_type qwen-vl-chat --lora_modules a", "write name=folder"),
        ("--model_type qwen-vl-chat --lora_modules a=b a=c", "two adapters are called 'a'"),
        ("--model_type qwen-vl-chat --temperature 500", "temperature is 500.0; it must lie between 0 and 100"),
        ("--model_type qwen-vl-chat --max_new_tokens 0", "--max-new-tokens"),
        ("--model_type qwen-vl-chat --do_sample maybe", "--do-sample"),
        ("--model_type qwen-vl-chat --merge_lora=maybe", "--merge-lora"),
        ("--model_type qwen-vl-chat --dtype int3", "'bfloat16', 'float16', 'float32'"),
        ("--model_type qwen-vl-chat --tensor_parallel_size 2", "tensor-parallel-size"),
    ],
)
def test_wrong_use_is_one_line_that_names_what_is_right(
    line: str, words: str, served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = checkpoint(tmp_path / "weights", config=QWEN_VL)
    adapter = checkpoint(tmp_path / "adapter", adapter_config={}, sft_args=ARGUMENTS)
    assert run(line.format(weights=weights, adapter=adapter)) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not served.models


def test_an_adapter_answers_under_the_models_name_and_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, EngineSettings]] = []
    monkeypatch.setattr(serve, "serve", lambda models, *_: started.append(models) or 0)
    folder = checkpoint(tmp_path / "checkpoint-9", adapter_config={}, sft_args=ARGUMENTS)
    other = checkpoint(tmp_path / "other", adapter_config={})
    assert run(f"--ckpt_dir {folder} --lora_modules other={other}") == 0
    (settings,) = started[0].values()
    assert settings.lora == str(folder)
    assert settings.lora_modules == {"default-lora": str(folder), "other": str(other)}
