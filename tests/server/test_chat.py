"""The real openai client against a real server."""

from __future__ import annotations

import json

import openai
import pytest

from tests.server.serving import PIXEL, Served


def ask(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def test_answers_in_one_piece(server: Served) -> None:
    answer = server.openai.chat.completions.create(model="echo", messages=ask("hello"))
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "echo"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "hello"
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    assert answer.usage.prompt_tokens == answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == 10
    assert answer.usage.prompt_tokens_details.cached_tokens == 2


def test_streams_and_the_fold_is_the_same(server: Served) -> None:
    chunks = list(server.openai.chat.completions.create(model="echo", messages=ask("hello"), stream=True))
    assert all(len(chunk.choices) == 1 and isinstance(chunk.choices[0].delta.content, str) for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 5 + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_every_line_is_data_and_done_is_last(server: Served) -> None:
    response = server.chat("a\nb\u2028c", stream=1, stream_options={"include_usage": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line for line in response.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line[6:]) for line in lines[:-1]]
    assert all(event["object"] == "chat.completion.chunk" for event in events)
    assert "".join(event["choices"][0]["delta"]["content"] for event in events[:-1]) == "a\nb\u2028c"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == 10
    assert all(event["usage"] is None for event in events[:-1])


def test_running_usage(server: Served) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = server.openai.chat.completions.create(
        model="echo", messages=ask("abc"), stream=True, stream_options=options
    )
    assert [chunk.usage.completion_tokens for chunk in chunks] == [0, 1, 2, 3, 3]


def test_n_choices(server: Served) -> None:
    answer = server.openai.chat.completions.create(model="echo", messages=ask("hi"), n=3)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, "hi"), (1, "hi"), (2, "hi")]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 6)
    texts = {0: "", 1: "", 2: ""}
    for chunk in server.openai.chat.completions.create(model="echo", messages=ask("hi"), n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content
    assert texts == {0: "hi", 1: "hi", 2: "hi"}


def test_stop_and_length(server: Served) -> None:
    stopped = server.chat("one two", stop=" ").json()["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"], stopped["stop_reason"]) == ("one", "stop", " ")
    cut = server.chat("one two", max_tokens=9, max_completion_tokens=2).json()["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"], cut["stop_reason"]) == ("on", "length", None)


def test_logprobs(server: Served) -> None:
    create = server.openai.chat.completions.create
    whole = create(model="echo", messages=ask("hé"), logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [entry.token for entry in whole] == ["h", "é"]
    assert whole[1].bytes == list("é".encode())
    assert [entry.logprob for entry in whole[0].top_logprobs] == [-0.5, -1.5]
    chunks = create(model="echo", messages=ask("hé"), logprobs=True, top_logprobs=2, stream=True)
    streamed = [entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert streamed == whole
    assert create(model="echo", messages=ask("h"), logprobs=True).choices[0].logprobs.content[0].top_logprobs == []


def test_pictures_keep_their_places(server: Served) -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "high"}},
        {"type": "text", "text": "b"},
        {"type": "image_url", "image_url": PIXEL},
        {"image_url": {"url": PIXEL}},
    ]
    answer = server.openai.chat.completions.create(model="echo", messages=ask(parts))
    assert answer.choices[0].message.content == "a<image 4>b<image 4><image 4>"
    wheres = [item.where for item in server.model.seen[-1].media]
    assert wheres == [f"messages[0].content[{place}].image_url" for place in (1, 3, 4)]


def test_nulls_everywhere_and_no_model(server: Served) -> None:
    fields = "stop_token_ids stop n temperature top_p max_tokens seed stream tools tool_choice response_format user"
    message = {"role": "user", "content": "hello", "name": None, "tool_calls": None}
    response = server.post("/v1/chat/completions", {"messages": [message], **dict.fromkeys(fields.split())})
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "hello"
    assert server.model.seen[-1].messages[-1].extra == {}


def test_defaults_are_the_models_and_what_is_sent_wins(server: Served) -> None:
    server.chat("x", top_k=3, stop_token_ids=[7])
    sampling = server.model.seen[-1].sampling
    assert (sampling.top_k, sampling.temperature, sampling.top_p, sampling.max_tokens) == (3, 0.5, 1.0, None)
    assert sampling.stop_token_ids == (7,)
    server.chat("x", temperature=0)
    assert server.model.seen[-1].sampling.temperature == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_a_real_400(server: Served, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai.chat.completions.create(model="echo", messages=ask("x" * 5000), stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert "5000" in caught.value.message


def test_unknown_model_is_404(server: Served) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        server.openai.chat.completions.create(model="ecko", messages=ask("x"))
    assert caught.value.code == "model_not_found"
    assert "'echo'" in caught.value.message


def test_media_that_cannot_be_had(server: Served) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai.chat.completions.create(
            model="echo", messages=ask([{"type": "image_url", "image_url": {"url": "http://nowhere/"}}])
        )
    assert caught.value.param == "messages[0].content[0].image_url"
    assert caught.value.code == "media_unreachable"


def test_nothing_stays_behind(server: Served) -> None:
    assert server.pool.leases == 0
    assert server.model.running == 0
