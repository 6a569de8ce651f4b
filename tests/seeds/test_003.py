"""Seed 003: the OpenAI server of vLLM 0.7.2 with all its flags, and the script that asks it about one picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Running, serve
from tests.examples.test_examples import run
from tests.seeds.serving import FILES, make_model
from tests.seeds.wire import Seen, encoded, post, said, stream

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}ASSISTANT: {{ m['content'] }}</s>\n"
    "{% else %}USER: {{ m['content'] }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s003") / "InternVL2_5"
    make_model("InternVL2_5", path)
    path.with_name("template_llava.jinja").write_text(TEMPLATE)
    return path


@pytest.fixture(scope="module")
def running(model: Path) -> Iterator[Running]:
    """The server of row 25 with its module and flags, but for the port."""
    flags = [
        *("--model", str(model), "--max-num-seqs=256", "--max-model-len=4096", "--max-num-batched-tokens=4096"),
        *("--tensor-parallel-size=1", "--block-size=128"),
        *("--chat-template", str(model.with_name("template_llava.jinja")), "--dtype", "float32", "--host=127.0.0.1"),
        *("--gpu-memory-utilization=0.9", "--trust-remote-code"),
    ]
    command = ["sensorium.entrypoints.openai.api_server"]
    with serve(flags, model.with_name("home"), command) as started:
        yield started


def payload(model: Path, **arguments: Any) -> dict[str, Any]:
    """What the seed's script sends: every field, nulls and whole numbers included."""
    defaults = {
        "max_tokens": 16, "temperature": 0, "ignore_eos": False, "stream": False, "top_k": -1, "top_p": 1.0,
        "stop_token_ids": stop_token_ids(model), "repetition_penalty": 1.0,
    }  # fmt: skip
    # The script calls everything a JPEG.
    picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded('cat.png')}"}}
    content = [{"type": "text", "text": "图片内容是什么"}, picture]
    return {"model": str(model), "messages": [{"role": "user", "content": content}], **defaults, **arguments}


def stop_token_ids(model: Path) -> list[int] | None:
    config = json.loads((model / "config.json").read_text())
    return [0, 92543, 92542] if config["architectures"][0] == "InternVLChatModel" else None


def test_row_25_the_template_of_the_flag_is_used(running: Running, model: Path) -> None:
    tokens = post(running, payload(model), "/tokenize")["tokens"]
    text = post(running, {"tokens": tokens}, "/detokenize")["prompt"]
    assert text.startswith("USER: 图片内容是什么\n<img>")
    assert text.endswith("\nASSISTANT:")


def test_row_26_the_scripts_request(running: Running, model: Path) -> None:
    body = payload(model)
    assert body["stop_token_ids"] == [0, 92543, 92542]
    answer = post(running, body)
    assert answer["model"] == str(model)
    assert answer["usage"]["completion_tokens"] <= 16
    for more in ({"stop_token_ids": None}, {"top_p": 1}, {"stream": 0}, {"ignore_eos": True, "top_k": 5}):
        said(post(running, payload(model, **more)))
    assert stream(running, payload(model, stream=1)) == said(answer)
    plain = {"messages": body["messages"]}
    assert Seen(running, body) == Seen(running, plain)


@pytest.mark.parametrize("streamed", ["0", "1"])
def test_row_26_the_script(running: Running, model: Path, streamed: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(FILES["cat.png"])
    arguments = ["--model-path", str(model), "--image-path", str(tmp_path / "cat.png"), "--text", "图片内容是什么"]
    where = ["--docker-ip", "127.0.0.1", "--served-port", running.url.rpartition(":")[2], "--stream", streamed]
    printed = run("online_serving.py", *arguments, *where)
    assert ('"finish_reason"' in printed) == (streamed == "0")
    text = said(post(running, payload(model)))
    assert text in (printed if streamed == "1" else said(json.loads(printed)))


def test_row_26_a_template_in_the_request_is_refused(running: Running, model: Path) -> None:
    error = post(running, payload(model, chat_template=TEMPLATE), status=400)
    assert (error["param"], error["object"]) == ("chat_template", "error")
    assert "--trust-request-chat-template" in error["message"]
