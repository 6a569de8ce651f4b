from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium import LLM
from sensorium.errors import ConfigurationError
from sensorium.settings import EngineSettings
from sensorium.worker.engines import wants_library
from tests.checkpoints import make_checkpoint
from tests.hf.checkpoints import gpt_neox, idefics3
from tests.hf.reference import answer, ask

NEOX: dict[str, Any] = {"architectures": ["GPTNeoXForCausalLM"]}
QWEN: dict[str, Any] = {"architectures": ["Qwen2ForCausalLM"]}


def test_the_engine_is_chosen_by_architecture_unless_it_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def wanted(engine: Any, config: dict[str, Any]) -> bool:
        return wants_library(EngineSettings("m", engine=engine), config)

    assert not wanted("auto", QWEN)
    assert wanted("transformers", QWEN)
    assert not wanted("native", NEOX)
    assert not wanted("auto", {})
    assert not caplog.records
    assert wanted("auto", NEOX)
    (line,) = caplog.messages
    assert line == (
        "No native family serves GPTNeoXForCausalLM: 'm' runs on the engine transformers, one request after another."
    )


def test_a_native_family_on_the_other_engine_answers_the_same(tmp_path: Path) -> None:
    make_checkpoint("qwen3", tmp_path)
    outputs = []
    for engine in ("native", "transformers"):
        with LLM(str(tmp_path), dtype="float32", engine=engine) as llm:
            assert llm.info.engine == engine
            outputs.append(answer(llm, ask("图中有什么？ <|im_end|>")))
    assert outputs[0].prompt_token_ids == outputs[1].prompt_token_ids
    assert outputs[0].outputs[0].token_ids == outputs[1].outputs[0].token_ids


def test_native_refuses_what_it_does_not_know_and_engines_have_names(tmp_path: Path) -> None:
    path = gpt_neox(tmp_path)
    with pytest.raises(ConfigurationError, match="'GPTNeoXForCausalLM' is not supported"):
        LLM(str(path), engine="native")
    with pytest.raises(ConfigurationError, match="engine"):
        LLM(str(path), engine="steam")


def test_bin_files_are_read_without_unpickling_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    load = torch.load

    def spy(*args: Any, **options: Any) -> Any:
        seen.append(options)
        return load(*args, **options)

    path = gpt_neox(tmp_path, bin=True)
    monkeypatch.setattr(torch, "load", spy)
    with LLM(str(path), dtype="float32") as llm:
        assert len(answer(llm, ask("hi")).outputs[0].token_ids) == 16
    assert seen
    assert all(options["weights_only"] is True and options["mmap"] is True for options in seen)


def test_a_bin_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = gpt_neox(tmp_path, bin=True)
    trace = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (trace,))

    torch.save({"gpt_neox.embed_in.weight": Bomb()}, path / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="cannot load the weights"):
        LLM(str(path))
    assert not trace.exists()


def change(path: Path, **values: Any) -> str:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return str(path)


def test_what_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gpt_neox(tmp_path)
    with pytest.raises(ConfigurationError, match="made for 512 tokens"):
        LLM(str(path), max_model_len=513)
    with pytest.raises(ConfigurationError, match="max_pixels cannot be set with the engine transformers"):
        LLM(str(path), mm_processor_kwargs={"max_pixels": 9})
    with pytest.raises(ConfigurationError, match="enough for 0 tokens"):
        LLM(str(path), kv_cache_bytes=256)
    with pytest.raises(ConfigurationError, match=r"lacks \d+ tensors .*gpt_neox.layers.2"):
        LLM(change(path, num_hidden_layers=3))
    with pytest.raises(ConfigurationError, match="code from the hub"):
        LLM(change(path, num_hidden_layers=2, attn_implementation="someone/kernel"))
    with pytest.raises(ConfigurationError, match="brings code of its own"):
        LLM(change(path, architectures=["OwnForCausalLM"], auto_map={"AutoModelForCausalLM": "own.OwnForCausalLM"}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'sensorium\[transformers\]'"):
        LLM(str(path))


def test_code_beside_a_checkpoint_never_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = gpt_neox(tmp_path)
    (path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Tokenizer", None]}
    with LLM(change(path, auto_map=own), dtype="float32", trust_remote_code=True) as llm:
        assert len(answer(llm, ask("hi")).outputs[0].token_ids) == 16
    assert not (tmp_path / "ran").exists()
    assert any("trust_remote_code" in message for message in caplog.messages)


def test_a_model_that_sees_needs_its_processor(tmp_path: Path) -> None:
    path = idefics3(tmp_path)
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigurationError, match="processor"):
        LLM(str(path))
