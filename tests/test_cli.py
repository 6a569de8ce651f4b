from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sensorium.terminal.serve
from sensorium import __version__
from sensorium.cli import _main
from sensorium.errors import ConfigurationError
from sensorium.settings import GIB, MIB, EngineSettings, ServerSettings
from sensorium.terminal.arguments import is_server, normalise


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, EngineSettings], ServerSettings, str]]:
    calls: list[Any] = []

    def record(*arguments: Any) -> int:
        calls.append(arguments)
        return 0

    monkeypatch.setattr(sensorium.terminal.serve, "serve", record)
    return calls


def run(line: list[str]) -> int:
    return _main(normalise(line))


def test_serve_without_anything_serves_the_bundled_models_on_loopback(served: list[Any]) -> None:
    assert run(["serve"]) == 0
    models, settings, _, on_demand = served[0]
    assert list(models) == ["tiny-vl", "tiny-audio"]
    assert models["tiny-vl"] == EngineSettings("tiny-vl", name="tiny-vl")
    assert (models["tiny-audio"].model, on_demand) == ("tiny-audio", ("tiny-audio",))
    assert (settings.host, settings.port, settings.api_keys) == ("127.0.0.1", 8000, ())


def test_every_option_arrives(served: list[Any]) -> None:
    line = """serve Qwen/Qwen3-VL-2B-Instruct --host 0.0.0.0 --port 9000 --api-key k1 --api-key k2 --dtype half
        --max_model_len 2048 --max-num-seqs=16 --max_num_batched_tokens 512 --served-model-name a b --device cuda:1
        --gpu_memory_utilization .8 --kv-cache-memory 2GiB --block-size 32 --no-enable-prefix-caching
        --encoder-cache-memory 64MiB --min-pixels 100 --max-pixels 2000 --revision main --seed 3 --threads 2
        --trust-remote-code --allow-private-media --max-image-bytes 5MiB --max-image-pixels 1000 --grace 5
        --limit_mm_per_prompt image=5,video=2 --tensor-parallel-size=1 --log-level debug --no-preload
        --trust-request-chat-template"""
    assert run([*line.split(), "--chat-template", "{{ messages }}"]) == 0
    models, settings, log_level, on_demand = served[0]
    assert (list(models), on_demand) == (["a", "b"], ())
    engine = models["a"]
    assert models["b"] is engine
    assert (engine.model, engine.name, engine.dtype, engine.device) == (
        "Qwen/Qwen3-VL-2B-Instruct",
        "a",
        "float16",
        "cuda:1",
    )
    assert (engine.max_model_len, engine.max_num_seqs, engine.max_num_batched_tokens) == (2048, 16, 512)
    assert (engine.gpu_memory_utilization, engine.kv_cache_bytes, engine.block_size) == (0.8, 2 * GIB, 32)
    assert (engine.enable_prefix_caching, engine.encoder_cache_bytes) == (False, 64 * MIB)
    assert engine.mm_processor_kwargs == {"min_pixels": 100, "max_pixels": 2000}
    assert (engine.revision, engine.seed, engine.num_threads) == ("main", 3, 2)
    assert engine.limit_mm_per_prompt == {"image": 5, "video": 2}
    assert engine.chat_template == "{{ messages }}"
    assert engine.media == settings.media
    assert (engine.media.max_bytes, engine.media.max_pixels, engine.media.allow_private) == (5 * MIB, 1000, True)
    assert (settings.host, settings.port, settings.api_keys) == ("0.0.0.0", 9000, ("k1", "k2"))
    assert (settings.grace_s, settings.preload, log_level) == (5.0, False, "debug")
    assert settings.trust_request_chat_template
    assert not ServerSettings().trust_request_chat_template


def test_what_is_said_about_pictures_is_not_said_to_the_model_that_hears(served: list[Any]) -> None:
    assert run(["serve", "--max-pixels", "2000", "--chat-template", "{{ messages }}", "--threads", "1"]) == 0
    hears = served[0][0]["tiny-audio"]
    assert (hears.mm_processor_kwargs, hears.chat_template, hears.num_threads) == ({}, None, 1)


def test_adapters_of_the_model_that_sees_are_not_its_neighbours(served: list[Any], tmp_path: Path) -> None:
    assert run(["serve", "--lora-modules", f"own={tmp_path}", "--tokenizer", str(tmp_path)]) == 0
    sees, hears = served[0][0]["tiny-vl"], served[0][0]["tiny-audio"]
    assert (sees.lora_modules, sees.tokenizer) == ({"own": str(tmp_path)}, str(tmp_path))
    assert (hears.lora_modules, hears.tokenizer) == ({}, None)


def test_a_name_for_the_bundled_model_leaves_it_alone(served: list[Any]) -> None:
    assert run(["serve", "--served-model-name", "eyes"]) == 0
    assert list(served[0][0]) == ["eyes"]


def test_limits_and_processor_options_as_json(served: list[Any]) -> None:
    limits, options = {"image": 5, "video": 2}, {"min_pixels": 4, "max_pixels": 9}
    assert (
        run(["serve", "--limit-mm-per-prompt", json.dumps(limits), "--mm-processor-kwargs", json.dumps(options)]) == 0
    )
    engine = served[0][0]["tiny-vl"]
    assert (engine.limit_mm_per_prompt, engine.mm_processor_kwargs) == (limits, options)


@pytest.mark.parametrize(
    "line",
    [
        ["--limit-mm-per-prompt", '{"image": 2, "video": 1}'],
        ["--limit_mm_per_prompt", '{"image": {"count": 2}, "video": {"count": 1, "num_frames": 32}}'],
        ['--limit_mm_per_prompt={"image": "2", "video": 1, "audio": {}}'],
        ["--limit-mm-per-prompt=image=2,video=1"],
        ["--limit-mm-per-prompt", "image=2, video=1"],
        ["--limit-mm-per-prompt", "image=2", "--limit_mm_per_prompt=video=1"],
        ["--limit-mm-per-prompt", "image=9,video=1", "--limit-mm-per-prompt", '{"image": 2}'],
        ["--limit-mm-per-prompt.image", "2", "--limit_mm_per_prompt.video=1"],
        ["--limit-mm-per-prompt.image.count", "2", "--limit-mm-per-prompt.video", "1"],
    ],
)
def test_limits_in_every_spelling(line: list[str], served: list[Any]) -> None:
    assert run(["serve", *line, "a/model"]) == 0
    assert served[0][0]["a/model"].limit_mm_per_prompt == {"image": 2, "video": 1}


def test_limits_on_clips_and_limits_as_current_vllm_writes_them(served: list[Any]) -> None:
    line = """serve --max-video-bytes 1MiB --max-audio-bytes 2MiB --max-video-frames 9 --max-frame-pixels 500
        --max-video-seconds 1.5 --max-audio-seconds 30"""
    limits = {"image": 4, "video": {"count": 1, "num_frames": 32}}
    assert run([*line.split(), "--limit-mm-per-prompt", json.dumps(limits)]) == 0
    engine = served[0][0]["tiny-vl"]
    media = engine.media
    assert engine.limit_mm_per_prompt == {"image": 4, "video": 1}
    assert (media.max_video_bytes, media.max_audio_bytes) == (MIB, 2 * MIB)
    assert (media.max_video_frames, media.max_frame_pixels) == (9, 500)
    assert (media.max_video_s, media.max_audio_s) == (1.5, 30.0)


def test_where_defaults_and_tokenizer_come_from(served: list[Any], tmp_path: Path) -> None:
    defaults = {"temperature": 0.2, "max_new_tokens": 9, "do_sample": True}
    line = ["serve", "a/b", "--generation-config", "vllm", "--override-generation-config", json.dumps(defaults)]
    assert run([*line, "--tokenizer", str(tmp_path), "--hub", "modelscope"]) == 0
    engine = served[0][0]["a/b"]
    assert (engine.generation_config, engine.override_generation_config) == ("vllm", defaults)
    assert (engine.tokenizer, engine.hub) == (str(tmp_path), "modelscope")
    assert run(["serve", "--model", "a/b", "--tokenizer", "a/b"]) == 0
    assert served[1][0]["a/b"].tokenizer is None


def test_the_key_may_come_from_the_environment(served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_API_KEY", "secret")
    assert run(["serve"]) == 0
    assert served[0][1].api_keys == ("secret",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["serve", "--engine", "steam"], "'auto', 'native', 'transformers'"),
        (["serve", "--dtype", "int3"], "'bfloat16', 'float16', 'float32'"),
        (["serve", "--device", "tpu"], "auto, cpu, cuda, cuda:N"),
        (["serve", "--block-size", "7"], "'16', '32'"),
        (["serve", "--kv-cache-memory", "much"], "write 512MiB, 2GiB"),
        (["serve", "--limit-mm-per-prompt", "smell=1"], "image, video, audio"),
        (["serve", "--limit-mm-per-prompt", "image=few"], "whole number"),
        (["serve", "--limit-mm-per-prompt", "{image: 5}"], "not a JSON object"),
        (
            ["serve", "--limit-mm-per-prompt", '{"image": {"count": -1}}'],
            "limit of 'image' is -1; write a whole number",
        ),
        (["serve", "--limit-mm-per-prompt", '{"image": null}'], "limit of 'image' is None"),
        (["serve", "--limit-mm-per-prompt.smell", "1"], "image, video, audio"),
        (["serve", "--limit-mm-per-prompt.image"], "limit of 'image' is ''"),
        (["serve", "--mm-processor-kwargs", '{"pixels": 1}'], "min_pixels, max_pixels"),
        (["serve", "--min-pixels", "9", "--max-pixels", "4"], "more than max_pixels, 4"),
        (["serve", "--gpu-memory-utilization", "2"], "0.0<x<=1.0"),
        (["serve", "--port", "99999"], "0<=x<=65535"),
        (["serve", "--chat-template", "no/such.jinja"], "no file 'no/such.jinja'"),
        (["serve", "--allowed-local-media-path", "/no/such"], "does not exist"),
        (["serve", "--tensor-parallel-size", "2"], "tensor-parallel-size"),
        (["serve", "--workers", "2"], "--workers"),
        (["serve", "a", "--model", "b"], "two models"),
        (["run", "a", "b", "c"], "quotes"),
        (["run", "question", "--image", "no/such.png"], "no/such.png"),
        (["chat", "http://127.0.0.1:9"], "No server answers"),
        (["fly"], "fly"),
        (["serve", "--tokenizer", "/no/such"], "there is no folder '/no/such' to take the tokenizer from"),
        (["serve", "--generation-config", "/no/such"], "neither auto nor vllm, nor a folder"),
        (["serve", "--override-generation-config", '{"heat": 1}'], "they are temperature, top_p, top_k"),
        (["serve", "--override-generation-config", '{"top_k": 1.5}'], "top_k is 1.5; it must be a number"),
        (["serve", "--override-generation-config", '{"top_p": 2}'], "top_p is 2; it must lie between"),
        (["serve", "--served-model-name", ""], "a --served-model-name is empty."),
    ],
)
def test_wrong_use_is_one_line_that_names_what_is_right(
    line: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("sensorium: ")
    assert error.count("\n") == 1


def test_version_is_quick_and_imports_nothing_large() -> None:
    code = (
        "import sys; sys.argv = ['sensorium', '--version']\n"
        "from sensorium.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print([name for name in ('torch', 'fastapi', 'numpy', 'rich', 'asyncio', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"sensorium {__version__}\n[]\n"


def test_options_that_have_no_effect_on_another_server_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Nobody:
        def __init__(self, url: str, key: str | None) -> None:
            raise ConfigurationError("No server answers.")

    monkeypatch.setattr("sensorium.terminal.remote.RemoteModel", Nobody)
    line = ["chat", "http://127.0.0.1:9", "--dtype", "float16", "--seed", "5", "--threads", "2", "--system", "x"]
    assert run([*line, "--trust-remote-code"]) == 2
    shown = capsys.readouterr().err.splitlines()[0]
    assert shown.startswith("Without effect here: ")
    assert all(flag in shown for flag in ("--dtype", "--seed", "--threads", "--trust-remote-code"))
    assert "--system" not in shown
    assert run(["chat", "http://127.0.0.1:9"]) == 2
    assert "Without effect" not in capsys.readouterr().err


def test_options_of_a_model_have_no_effect_without_one(served: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    line = ["serve", "--no-model", "--dtype", "float16", "--max-num-seqs", "3", "--max-image-bytes", "1MiB"]
    assert run(line) == 0
    shown = capsys.readouterr().err
    assert "--dtype" in shown
    assert "--max-num-seqs" in shown
    assert "--max-image-bytes" not in shown  # a server's own, whatever it serves
    assert served[0][1].media.max_bytes == MIB


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["serve", "--port", "abc"], "'--port': 'abc' is not a whole number. See"),
        (["serve", "--grace", "abc"], "'--grace': 'abc' is not a number. See"),
        (["serve", "a", "b"], "extra argument (b). See"),
    ],
)
def test_a_complaint_is_a_plain_sentence(line: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("target", ["http://a", "https://a/v1", "127.0.0.1:8000", "localhost:8000/v1", "gateway:80"])
def test_a_server_to_chat_with_may_be_written_without_scheme(target: str) -> None:
    assert is_server(target)


@pytest.mark.parametrize("target", ["tiny-vl", "Qwen/Qwen3-VL-2B-Instruct", "./a:8", "name:latest"])
def test_a_model_to_chat_with_is_no_server(target: str) -> None:
    assert not is_server(target)
