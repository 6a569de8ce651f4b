"""/v1/completions, /tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import EchoModel
from tests.server.serving import PIXEL, Served, served


def test_one_prompt(server: Served) -> None:
    answer = server.openai.completions.create(model="echo", prompt="x" * 20)
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("x" * 16, "length")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 16)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", [["ab", "c"], [[97, 98], [99]]])
def test_many_prompts(server: Served, prompt: Any, stream: bool) -> None:
    create = server.openai.completions.create
    if stream:
        texts = dict.fromkeys(range(4), "")
        options = {"include_usage": True}
        for chunk in create(model="echo", prompt=prompt, n=2, stream=True, stream_options=options):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        usage = chunk.usage
    else:
        answer = create(model="echo", prompt=prompt, n=2)
        texts = {choice.index: choice.text for choice in answer.choices}
        usage = answer.usage
    assert texts == {0: "ab", 1: "ab", 2: "c", 3: "c"}
    assert (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens) == (3, 6, 4)


def test_token_ids(server: Served) -> None:
    assert server.openai.completions.create(model="echo", prompt=[104, 105]).choices[0].text == "hi"


def test_one_refused_prompt_refuses_all(server: Served) -> None:
    for stream in (False, True):
        response = server.post("/v1/completions", {"prompt": ["a", "x" * 5000], "stream": stream})
        assert response.status_code == 400
        assert response.json()["code"] == "context_length_exceeded"
    assert (server.pool.leases, server.model.running) == (0, 0)


def test_logprobs(server: Served) -> None:
    create = server.openai.completions.create
    whole = create(model="echo", prompt="abc", logprobs=2).choices[0].logprobs
    assert whole.tokens == ["a", "b", "c"]
    assert whole.text_offset == [0, 1, 2]
    assert whole.token_logprobs == [-0.5] * 3
    assert whole.top_logprobs[0] == {"a": -0.5, "b": -1.5}
    chunks = [chunk.choices[0].logprobs for chunk in create(model="echo", prompt="abc", logprobs=2, stream=True)]
    assert [offset for chunk in chunks for offset in chunk.text_offset] == whole.text_offset
    assert [top for chunk in chunks for top in chunk.top_logprobs] == whole.top_logprobs


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": ["a", 3]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [1, -1]}, "prompt[1]"),
        ({"prompt": [[1], [2, True]]}, "prompt[1][1]"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a"] * 20, "n": 7}, "n"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": "a", "images": ["x"]}, "images"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
    ],
    ids=str,
)
def test_wrong_field(server: Served, fields: dict[str, Any], param: str) -> None:
    response = server.post("/v1/completions", fields)
    assert response.status_code == 400
    assert response.json()["param"] == param


def test_tokenize(server: Served) -> None:
    assert server.post("/tokenize", {"model": "echo", "prompt": "hi", "return_token_strs": True}).json() == {
        "count": 2,
        "max_model_len": 4096,
        "tokens": [104, 105],
        "token_strs": ["h", "i"],
    }
    content = [{"type": "image_url", "image_url": PIXEL}]
    answer = server.post("/tokenize", {"messages": [{"role": "user", "content": content}]}).json()
    assert answer["count"] == len("<image 4>")
    assert answer["token_strs"] is None
    for wrong in ({}, {"prompt": "a", "messages": []}, {"prompt": ["a", "b"]}):
        assert server.post("/tokenize", wrong).json()["param"] == "prompt"
    turns = [{"role": "user", "content": "x"}]
    both = {"messages": turns, "continue_final_message": True, "add_generation_prompt": True}
    assert server.post("/tokenize", both).json()["param"] == "continue_final_message"


def test_detokenize(server: Served) -> None:
    assert server.post("/detokenize", {"tokens": [104, 105]}).json() == {"prompt": "hi"}
    response = server.post("/detokenize", {"tokens": [104, -5]})
    assert (response.status_code, response.json()["param"]) == (400, "tokens[1]")


def test_tokenize_checks_media() -> None:
    with served(model=EchoModel(modalities=("text",))) as server:
        content = [{"type": "image_url", "image_url": PIXEL}]
        assert server.post("/tokenize", {"messages": [{"role": "user", "content": content}]}).status_code == 400
