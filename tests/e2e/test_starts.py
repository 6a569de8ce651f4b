"""Every way a server is started in the documents we stand in for: real processes, tiny checkpoints, a request answered.

Only the program's name, paths and ports differ from what those documents write.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.checkpoints import make_checkpoint
from tests.e2e.running import Running, ask, data_url, serve
from tests.minicpm_checkpoints import make_minicpm
from tests.registry.fake_modelscope import fake_modelscope

RED = data_url(Image.new("RGB", (64, 48), "red"))
BLUE = data_url(Image.new("RGB", (48, 64), "blue"))
ARGUMENTS = {"model_type": "qwen2-audio-7b-instruct", "template_type": "qwen2-audio", "sft_type": "full"}


def answer(running: Running, model: str, messages: Any, **options: Any) -> Any:
    key = options.pop("api_key", "EMPTY")
    return running.client(api_key=key).chat.completions.create(model=model, messages=messages, **options)


def tokens(running: Running, messages: Any) -> int:
    reply = httpx.post(f"{running.url}/tokenize", json={"messages": messages}, timeout=60)
    return int(reply.json()["count"])


def test_vllm_serve_with_key_limits_and_a_flag_in_underscores(tmp_path: Path) -> None:
    model = str(tmp_path / "MiniCPM-V-2_6")
    make_minicpm("2.6", Path(model))
    line = """--dtype auto --max-model-len 2048 --api-key token-abc123 --gpu_memory_utilization 0.9 --trust-remote-code
        --max-num-batched-tokens 2048"""
    arguments = [model, *line.split(), "--limit-mm-per-prompt", '{"image":1, "video": 2}']
    with serve(arguments, tmp_path / "home", api_key="token-abc123") as running:
        with pytest.raises(openai.AuthenticationError):
            answer(running, model, ask("hi"), max_tokens=1)
        options: dict[str, Any] = {"api_key": "token-abc123", "max_tokens": 4}
        reply = answer(running, model, ask("请描述这张图片", RED), extra_body={"stop_token_ids": [1, 2]}, **options)
        assert reply.model == model
        alone = answer(running, model, ask("请描述这张图片"), **options)
        slots = json.loads((Path(model) / "config.json").read_text())["query_num"]
        assert reply.usage.prompt_tokens >= alone.usage.prompt_tokens + slots
        with pytest.raises(openai.BadRequestError, match="image"):
            answer(running, model, ask("?", RED, BLUE), **options)
        card = running.client(api_key="token-abc123").models.list().data[0]
        assert (card.id, card.max_model_len) == (model, 2048)  # type: ignore[attr-defined]
    line_of_unused = [text for text in running.output.splitlines() if text.startswith("Without effect here: ")]
    assert len(line_of_unused) == 1
    assert "--trust-remote-code" in line_of_unused[0]
    assert "--gpu-memory-utilization 0.9" in line_of_unused[0]


def test_vllms_module_with_a_template_and_variables(tmp_path: Path) -> None:
    model, template = str(tmp_path / "model"), tmp_path / "template.jinja"
    make_checkpoint("qwen2_5_vl", Path(model))
    template.write_text(
        "{% for message in messages %}USER: {% if message.content is string %}{{ message.content }}{% else %}"
        "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}{{ '\\n' }}{% endfor %}ASSISTANT:"
    )
    line = f"""--model {model} --max-num-seqs=256 --max-model-len=4096 --max-num-batched-tokens=4096
        --tensor-parallel-size=1 --block-size=128 --chat-template {template} --dtype float32 --host=127.0.0.1
        --gpu-memory-utilization=0.9 --trust-remote-code"""
    variables = {
        "VLLM_IMAGE_FETCH_TIMEOUT": "100",
        "VLLM_ENGINE_ITERATION_TIMEOUT_S": "600",
        "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
    }
    command = ["sensorium.entrypoints.openai.api_server"]
    with serve(line.split(), tmp_path / "home", command, variables) as running:
        payload = {
            "model": model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "图片内容是什么"},
                        {"type": "image_url", "image_url": {"url": RED.replace("image/png", "image/jpeg")}},
                    ],
                }
            ],
            **{"max_tokens": 8, "temperature": 0, "ignore_eos": False, "stream": 0, "top_k": -1, "top_p": 1.0},
            **{"stop_token_ids": None, "repetition_penalty": 1.0},
        }
        reply = httpx.post(f"{running.url}/v1/chat/completions", json=payload, timeout=60)
        assert reply.status_code == 200, reply.text
        prompt = httpx.post(f"{running.url}/tokenize", json={"messages": ask("hi")}, timeout=60).json()
        shown = httpx.post(f"{running.url}/detokenize", json={"tokens": prompt["tokens"]}, timeout=60).json()
        assert shown["prompt"] == "USER: hi\nASSISTANT:"
    assert "PYTORCH_NPU_ALLOC_CONF (there is no NPU)" in running.output


def test_rtp_llms_variables_with_the_tokenizer_in_another_folder(tmp_path: Path) -> None:
    model, tokenizer = tmp_path / "model", tmp_path / "tokenizer"
    make_checkpoint("llava", model)
    tokenizer.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).rename(tokenizer / name)
    variables = {
        "MODEL_TYPE": "llava",
        "TOKENIZER_PATH": str(tokenizer),
        "CHECKPOINT_PATH": str(model),
        "FT_SERVER_TEST": "1",
    }
    with serve([], tmp_path / "home", ["sensorium.start_server"], variables, "START_PORT") as running:
        messages = [
            {
                "role": "user",
                "content": [
                    {"image_url": {"url": RED}, "type": "image_url"},
                    {"text": "描述一下这张图片", "type": "text"},
                ],
                "name": None,
            }
        ]
        body = {"temperature": 0.0, "top_p": 0.1, "messages": messages, "max_tokens": 4}
        reply = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        assert reply.json()["model"] == "llava"
        assert reply.json()["usage"]["completion_tokens"] <= 4


def test_swift_deploy_of_a_model_type_from_modelscope(tmp_path: Path) -> None:
    make_checkpoint("qwen2_audio", tmp_path / "model")
    files = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    deploy = ["sensorium", "deploy"]
    with fake_modelscope(files, "qwen/Qwen2-Audio-7B-Instruct") as hub:
        variables = {"CUDA_VISIBLE_DEVICES": "0", "MODELSCOPE_ENDPOINT": hub.url}
        line = ["--model_type", "qwen2-audio-7b-instruct"]
        with serve(line, tmp_path / "home", deploy, variables) as running:
            name = running.client().models.list().data[0].id
            assert name == "qwen2-audio-7b-instruct"
            assert answer(running, name, ask("hi"), max_tokens=4, temperature=0).usage.completion_tokens <= 4
        assert any("FilePath=model.safetensors" in path for path in hub.asked)


def test_swift_deploy_of_merged_weights_answers_as_it_was_trained(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-9-merged"
    make_checkpoint("qwen2_audio", folder)
    system = "Answer like a pirate, and briefly."
    (folder / "sft_args.json").write_text(json.dumps(ARGUMENTS | {"system": system, "dtype": "fp32"}))
    line = ["--ckpt_dir", str(folder), "--infer_backend", "pt", "--max_new_tokens", "5", "--temperature", "0"]
    with serve(line, tmp_path / "home", ["sensorium", "deploy"]) as running:
        name = running.client().models.list().data[0].id
        assert name == "qwen2-audio-7b-instruct"
        said = [{"role": "system", "content": system}, *ask("hi")]
        other = [{"role": "system", "content": "Be long."}, *ask("hi")]
        assert tokens(running, ask("hi")) == tokens(running, said)
        assert tokens(running, ask("hi")) != tokens(running, other)
        free = {"extra_body": {"ignore_eos": True}}
        first, second = (answer(running, name, ask("hi"), **free) for _ in range(2))  # temperature 0: equal
        assert first.choices[0].message.content == second.choices[0].message.content
        assert first.usage.completion_tokens == 5
        assert answer(running, name, ask("hi"), max_tokens=7, **free).usage.completion_tokens == 7
        assert httpx.get(f"{running.url}/health").status_code == 200


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sensorium serve --quantization awq", "--quantization awq cannot be served"),
        ("sensorium.api_server --modle x", "There is no option --modle. Did you mean --model?"),
        ("sensorium.entrypoints.openai.api_server --dtype int3", "'bfloat16', 'float16', 'float32'"),
        ("sensorium deploy --model_type qwen-vl", "Did you mean 'qwen-vl-chat'?"),
        ("sensorium.start_server", "set CHECKPOINT_PATH"),
    ],
)
def test_wrong_commands_end_at_once(command: str, words: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("CHECKPOINT_PATH", "MODEL_TYPE")}
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], capture_output=True, text=True, timeout=60, env=environment
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
