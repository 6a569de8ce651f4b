"""Seed 001: a Qwen-VL-Chat started by variables, a chat request without a model, and raw prompts over POST /."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.running import Running, serve
from tests.examples.test_examples import run
from tests.seeds.serving import make_model
from tests.seeds.wire import TIMEOUT_S, parts, post, said, seen_as_parts

CONFIG = {"top_k": 1, "max_new_tokens": 100}
ASK = "Picture 1:<img/>\n这是什么"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Iterator[Running]:
    """The server of row 13, told by variables what to serve and where."""
    folder = tmp_path_factory.mktemp("s001")
    model = folder / "model"
    make_model("qwen-vl-chat", model)
    variables = {
        "MODEL_TYPE": "qwen_vl",
        "TOKENIZER_PATH": str(model),
        "CHECKPOINT_PATH": str(model),
        "FT_SERVER_TEST": "1",
        "MAX_SEQ_LEN": "1024",
    }
    line = ["--allow-private-media", "--allowed-local-media-path", str(pictures)]
    with serve(line, folder / "home", ["sensorium.start_server"], variables, "START_PORT") as started:
        yield started


def test_row_13_what_the_variables_said_is_served(running: Running) -> None:
    card = running.client().models.list().data[0]
    assert (card.id, card.max_model_len) == ("qwen_vl", 1024)  # type: ignore[attr-defined]
    assert httpx.get(f"{running.url}/health").status_code == 200


def chat(image_path: str) -> dict[str, Any]:
    """The seed's request: keys in its order, a null, no model."""
    content = [
        {"image_url": {"url": image_path}, "type": "image_url"},
        {"text": "描述一下这张图片", "type": "text"},
    ]
    messages = [{"role": "user", "content": content, "name": None}]
    return {"temperature": 0.0, "top_p": 0.1, "messages": messages}


def test_row_14_no_model_a_null_name_and_a_path_of_the_server(running: Running, media: str, pictures: Path) -> None:
    for path in (f"{media}/demo.jpeg", str(pictures / "demo.jpeg"), "demo.jpeg"):
        body = chat(path)
        assert said(post(running, body)) == said(post(running, body, "/chat/completions"))
        seen_as_parts(running, body, parts(("image", f"{media}/demo.jpeg"), "描述一下这张图片"))


def test_row_14_the_program(running: Running, pictures: Path) -> None:
    printed = run(
        "plain_request.py", str(pictures / "demo.jpeg"), "描述一下这张图片", "--port", running.url.rpartition(":")[2]
    )
    assert "'object': 'chat.completion'" in printed


def test_row_14_a_path_elsewhere_is_refused_by_its_place(running: Running) -> None:
    error = post(running, chat("/etc/hostname.png"), status=400)
    assert (error["param"], error["code"]) == ("messages[0].content[0].image_url", "media_forbidden")
    assert error["error_code"] == 903


def raw(running: Running, **body: Any) -> Any:
    return post(running, {"generate_config": CONFIG, **body}, "/")


def test_rows_11_and_12_raw_prompts_on_the_wire(running: Running, media: str) -> None:
    url = f"{media}/demo.jpeg?{'x' * 300}"  # longer than the 256 bytes upstream has room for
    apart = raw(running, prompt=ASK, urls=[url])
    inline = raw(running, prompt=ASK.replace("<img/>", f"<img>{url}</img>"))
    assert apart["finished"]
    assert apart["response"] == inline["response"]
    assert apart["aux_info"]["input_len"] == inline["aux_info"]["input_len"]
    other = raw(running, prompt=ASK, urls=[f"{media}/animal.png"])
    assert other["aux_info"]["input_len"] == apart["aux_info"]["input_len"]  # Qwen-VL's pictures have one size
    assert other["response"] != apart["response"]
    before = raw(running, prompt="这是什么", urls=[url])
    assert before["aux_info"]["input_len"] < apart["aux_info"]["input_len"]
    both = raw(running, prompt_batch=[ASK, "hi"], urls=[[url], []])["response_batch"]
    assert both[0]["response"] == apart["response"]


def test_row_11_a_stream_of_all_text_so_far(running: Running, media: str) -> None:
    body = {"prompt": ASK, "urls": [f"{media}/demo.jpeg"], "generate_config": CONFIG, "yield_generator": True}
    lines = httpx.post(running.url + "/", json=body, timeout=TIMEOUT_S).text.split("\r\n\r\n")
    assert lines[-2:] == ["data:[done]", ""]
    texts = [json.loads(line.removeprefix("data:"))["response"] for line in lines[:-2]]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert texts[-1] == raw(running, prompt=ASK, urls=body["urls"])["response"]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"prompt": "<img/><img/>x", "urls": ["u"]}, "prompt", "2 picture tags (at character 0, 6) and 1 URLs"),
        ({"prompt": "<img>http://a x"}, "prompt", "no </img> behind"),
        ({"prompt": "<img/>x", "urls": ["/etc/x.png"]}, "urls[0]", "not below the allowed folder"),
        ({"prompt": "<img/>x", "urls": ["/9j/AAAA*"]}, "urls[0]", "Failed to load image"),
        ({"urls": ["u"]}, "prompt", "none was given"),
        ({"prompt": "x " * 3000}, "prompt", "1024"),
    ],
)
def test_wrong_raw_prompts_are_told_in_rtps_form(running: Running, body: Any, param: str, words: str) -> None:
    error = post(running, body, "/", status=400)
    assert error["error_code"] in (507, 511, 903)
    assert words in error["message"]
    assert error["param"] == param
