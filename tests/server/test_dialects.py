"""Requests in the dialects of swift, rtp-llm and vLLM, from the socket to what the model is asked."""

from __future__ import annotations

import json

import httpx

from sensorium.settings import ServerSettings
from tests.fakes import EchoModel
from tests.server.serving import PIXEL, Served, served

TEMPLATE = "{{ messages[0].content }}"


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def test_tags_and_lists_become_parts(server: Served) -> None:
    assert text(server.chat(f"a<img>{PIXEL}</img>b")) == "a<image 4>b"
    assert text(server.chat("a<image>b", images=[PIXEL])) == "a<image 4>b"
    assert text(server.chat("b", urls=PIXEL)) == "<image 4>b"
    assert text(server.chat("a<image>b")) == "a<image>b"


def test_nulls_and_whole_numbers_are_read(server: Served) -> None:
    nulls = dict.fromkeys(
        ("model", "stop", "stop_token_ids", "n", "seed", "images", "tools", "logprobs", "max_tokens", "extra_configs")
    )
    body = {"messages": [{"role": "user", "content": "hi", "name": None, "tool_calls": None}], "stream": 0, **nulls}
    assert text(server.post("/v1/chat/completions", body)) == "hi"
    part = {"text": "hi", "image_url": None}
    assert (
        text(server.chat([part, {"type": "image_url", "image_url": {"url": PIXEL, "detail": None}}])) == "hi<image 4>"
    )
    assert text(server.chat("hi", top_p=1, ignore_eos=0, temperature=0, skip_special_tokens=1)) == "hi"


def test_extra_configs_lie_below_the_fields(server: Served) -> None:
    assert text(server.chat("hello", extra_configs={"max_new_tokens": 2})) == "he"
    assert text(server.chat("hello", extra_configs={"max_new_tokens": 2}, max_tokens=3)) == "hel"


def test_echo_of_a_conversation_is_the_assistants_own_beginning(server: Served) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}]
    body = {"messages": turns, "continue_final_message": True, "echo": True, "max_tokens": 1}
    assert text(server.post("/v1/chat/completions", body)) == "bcb"
    assert text(server.chat("a", echo=True)) == "a"
    lines = server.post("/v1/chat/completions", body | {"stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["bc", "b"]


def test_echo_of_prompts(server: Served) -> None:
    body = {"prompt": ["ab", "c"], "n": 2, "max_tokens": 1, "echo": True}
    choices = server.post("/v1/completions", body).json()["choices"]
    assert [choice["text"] for choice in choices] == ["aba", "aba", "cc", "cc"]
    lines = server.post("/v1/completions", {"prompt": [104, 105], "echo": True, "stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["hi", "h", "i"]


def test_a_template_runs_only_where_it_is_trusted(server: Served) -> None:
    for fields in ({"chat_template": TEMPLATE}, {"chat_template_kwargs": {"chat_template": TEMPLATE}}):
        error = server.chat("x", **fields).json()
        assert error["param"] == next(iter(fields))
        assert "--trust-request-chat-template" in error["message"]
    with served(ServerSettings(trust_request_chat_template=True)) as trusting:
        assert text(trusting.chat("x", chat_template=TEMPLATE)) == "x"
        assert trusting.model.seen[-1].chat_template == TEMPLATE
        tokens = trusting.post("/tokenize", {"messages": [{"role": "user", "content": "x"}], "chat_template": TEMPLATE})
        assert tokens.status_code == 200
        assert trusting.model.seen[-1].chat_template == TEMPLATE
        assert trusting.chat("x", chat_template_kwargs={"chat_template": TEMPLATE}).status_code == 400


def test_raw_prompts(server: Served) -> None:
    answer = server.post("/", {"prompt": "a<img/>b", "urls": [PIXEL]}).json()
    assert (answer["response"], answer["finished"], answer["aux_info"]["input_len"]) == ("a<image 4>b", True, 11)
    sampling = server.model.seen[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (1.0, 0.95, 0, 1000)
    batch = server.post("/", {"prompt_batch": ["x", "<img/>"], "urls": [[], [PIXEL]]}).json()["response_batch"]
    assert [each["response"] for each in batch] == ["x", "<image 4>"]
    assert (
        server.post("/", {"messages": [{"role": "user", "content": "<image>c"}], "images": [PIXEL]}).json()["response"]
        == "<image 4>c"
    )


def test_raw_streams(server: Served) -> None:
    def streamed(**config: object) -> list[str]:
        lines = server.post("/", {"prompt": "abc", "yield_generator": 1, "generate_config": config}).text
        *events, done, rest = lines.split("\r\n\r\n")
        assert (done, rest) == ("data:[done]", "")
        return [json.loads(event.removeprefix("data:"))["response"] for event in events]

    assert streamed() == ["a", "ab", "abc"]
    assert streamed(return_incremental=True) == ["a", "b", "c"]


def test_a_raw_stream_that_breaks_ends_with_an_error_and_no_mark() -> None:
    with served(model=EchoModel(die_after=1)) as server:
        text = server.post("/", {"prompt": "abc", "stream": 1}).text
        assert "[done]" not in text
        assert json.loads(text.split("data:")[-1])["error_code"] == 514


def test_raw_prompts_need_the_key_like_all_others() -> None:
    with served(ServerSettings(api_keys=("one",))) as server:
        assert server.post("/", {"prompt": "a"}).status_code == 401
        assert server.post("/", {"prompt": "a"}, headers={"Authorization": "Bearer one"}).status_code == 200
