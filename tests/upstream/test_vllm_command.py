from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import ConfigurationError
from sensorium.settings import EngineSettings
from sensorium.upstream import interpreter
from sensorium.upstream.vllm_command import arguments, environment


def options(cpu: bool = False, **settings: Any) -> list[str]:
    return arguments(EngineSettings("/m", engine="vllm", **settings), cpu=cpu)


def test_settings_become_options() -> None:
    words = options(
        dtype="bfloat16",
        max_model_len=4096,
        max_num_batched_tokens=2048,
        block_size=16,
        tensor_parallel_size=2,
        gpu_memory_utilization=0.5,
        kv_cache_bytes=1 << 30,
        limit_mm_per_prompt={"image": 3},
        mm_processor_kwargs={"max_pixels": 1000},
        chat_template="/t.jinja",
        tokenizer="/tok",
        seed=3,
        enable_prefix_caching=False,
    )
    assert words == [
        "--model=/m",
        "--served-model-name=model",
        "--dtype=bfloat16",
        "--tokenizer=/tok",
        "--max-model-len=4096",
        "--max-num-seqs=64",
        "--max-num-batched-tokens=2048",
        "--block-size=16",
        "--tensor-parallel-size=2",
        '--limit-mm-per-prompt={"image": 3}',
        '--mm-processor-kwargs={"max_pixels": 1000}',
        "--chat-template=/t.jinja",
        "--seed=3",
        '--override-generation-config={"max_new_tokens": null}',
        "--gpu-memory-utilization=0.5",
        "--kv-cache-memory-bytes=1073741824",
        "--no-enable-prefix-caching",
    ]


def test_its_own_options_by_their_names_there() -> None:
    words = options(
        engine_args={"enforce_eager": True, "swap-space": 0, "compilation_config": {"level": 3}, "x": False}
    )
    assert words[-4:] == ["--enforce-eager", "--swap-space=0", '--compilation-config={"level": 3}', "--no-x"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("--host", "only this server talks to it"),
        ("api-key", "only this server talks to it"),
        ("allowed_local_media_path", "media are fetched by this server"),
        ("served_model_name", "give --served-model-name"),
        ("a b", "no name of an option"),
    ],
)
def test_what_is_not_theirs_to_set(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        options(engine_args={name: True})


def test_they_count_before_our_settings() -> None:
    words = options(dtype="bfloat16", engine_args={"dtype": "float32", "max-num-seqs": 3})
    assert "--dtype=float32" in words
    assert "--max-num-seqs=3" in words
    assert len([word for word in words if word.startswith(("--dtype", "--max-num-seqs"))]) == 2


def test_room_for_adapters(tmp_path: Path) -> None:
    assert "--enable-lora" not in options()
    assert options(enable_lora=True)[-3:] == ["--enable-lora", "--max-loras=8", "--max-lora-rank=64"]
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 24}))
    assert options(lora_modules={"sql": str(tmp_path)})[-1] == "--max-lora-rank=32"
    assert options(lora=str(tmp_path), max_lora_rank=100)[-1] == "--max-lora-rank=128"


def test_memory_on_a_cpu_comes_from_the_environment(tmp_path: Path) -> None:
    settings = EngineSettings("/m", kv_cache_bytes=3 << 30, num_threads=2)
    words = arguments(settings, cpu=True)
    assert not any("memory" in word for word in words)
    found = environment(settings, cpu=True, key="k", folder=tmp_path)
    assert (found["VLLM_CPU_KVCACHE_SPACE"], found["VLLM_CPU_OMP_THREADS_BIND"]) == ("3", "0-1")
    assert (found["VLLM_API_KEY"], found["VLLM_NO_USAGE_STATS"]) == ("k", "1")
    with pytest.raises(ConfigurationError, match="num_threads"):
        arguments(settings, cpu=False)


def test_our_keys_and_paths_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SENSORIUM_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("HF_HOME", "/hf")
    found = interpreter.environment()
    assert found["HF_HOME"] == "/hf"
    assert not {"SENSORIUM_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY", "PYTHONPATH"} & set(found)
