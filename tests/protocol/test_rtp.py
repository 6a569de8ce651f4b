"""rtp-llm's POST /: prompts, pictures, generate_config, and the shapes of its answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from sensorium.errors import ContextLengthExceeded, InvalidRequest, MediaError, SensoriumError
from sensorium.protocol.body import parse_body
from sensorium.protocol.errors import error_body
from sensorium.protocol.rtp import RawBody, RawRequest, parse_raw
from sensorium.protocol.rtp_answer import RawAnswer
from sensorium.protocol.rtp_config import REFUSED
from sensorium.types import Delta, MediaSlot, SamplingParams, Started, Text
from sensorium.worker.frames import Generate, encode, to_worker


def parse(**body: Any) -> RawRequest:
    return parse_raw(parse_body(RawBody, json.dumps(body).encode()), "m", "raw-1")


def refused(**body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(**body)
    return caught.value


def said(wanted: RawRequest) -> list[list[str]]:
    return [
        [p.text if isinstance(p, Text) else f"({parsed.sources[p.index].url})" for p in parsed.request.prompt or ()]  # type: ignore[union-attr]
        for parsed in wanted.prompts
    ]


def test_the_seeds_two_prompts() -> None:
    config = {"top_k": 1, "max_new_tokens": 100}
    apart = parse(prompt="Picture 1:<img/>\n这是什么", urls=["http://a"], generate_config=config)
    inline = parse(prompt="Picture 1:<img>http://a</img>\n这是什么", generate_config=config)
    assert said(apart) == said(inline) == [["Picture 1:", "(http://a)", "\n这是什么"]]
    assert apart.prompts[0].sources[0].where == "urls[0]"
    assert inline.prompts[0].sources[0].where == "prompt.<img>[0]"
    for wanted in (apart, inline):
        sampling = wanted.prompts[0].request.sampling
        assert (sampling.top_k, sampling.max_tokens, sampling.top_p, sampling.temperature) == (1, 100, 0.95, 1.0)
        assert to_worker.decode(encode(Generate(wanted.prompts[0].request))[4:]).request == wanted.prompts[0].request


def test_urls_without_tags_stand_in_front() -> None:
    assert said(parse(prompt="x", images=["a", "b"])) == [["(a)", "\n", "(b)", "\n", "x"]]
    assert said(parse(prompt="<image>\nx<image>", urls=["a", "b"])) == [["(a)", "\nx", "(b)"]]
    assert said(parse(prompt="<image>x<video>")) == [["<image>", "x<video>"]]
    assert said(parse(prompt="<video>http://v</video>")) == [["<video>http://v</video>"]]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"prompt": "a<img/>b<img/>", "urls": ["x"]}, "prompt", "2 picture tags (at character 1, 8) and 1 URLs"),
        ({"prompt": "<img/>"}, "prompt", "1 picture tags"),
        ({"prompt": "<image>", "urls": ["x", "y"]}, "prompt", "1 picture tags (at character 0) and 2 URLs"),
        ({"prompt": "<img>x"}, "prompt", "no </img> behind"),
        ({"prompt": "x</img>"}, "prompt", "no <img> before"),
        ({"prompt": ""}, "prompt", "empty"),
        ({}, "prompt", "none was given"),
        ({"prompt": "a", "text": "b"}, "prompt", "2 of them"),
        ({"prompt": 5}, "prompt", "a string or a list"),
        ({"prompt_batch": []}, "prompt_batch", "0 entries"),
        ({"prompt_batch": "a"}, "prompt_batch", "a list"),
        ({"prompt": ["a", 5]}, "prompt[1]", "a string"),
        ({"prompt_batch": ["a", "b"], "urls": ["x", "y"]}, "urls[0]", "the list of prompt 0"),
        ({"prompt_batch": ["a", "b"], "urls": [["x"]]}, "urls", "1 lists for 2 prompts"),
        ({"prompt": "a", "urls": [""]}, "urls[0]", "is empty"),
        ({"prompt": "a", "urls": [["x", 5]]}, "urls[0][1]", "is a number"),
        ({"prompt": "a", "urls": ["x"], "images": ["y"]}, "urls", "same list"),
        ({"prompt": "a", "generate_config": {"top_p": 3}}, "top_p", "between"),
        ({"prompt": "a", "generate_config": {"max_new_tokens": 0}}, "max_new_tokens", "max_new_tokens is 0"),
        ({"prompt": "a", "generate_config": {"top_k": "1"}}, "generate_config.top_k", "an integer"),
        ({"prompt": "a", "generate_config": {"num_beams": 4}}, "generate_config.num_beams", "not supported"),
        ({"prompt": "a", "num_beams": 4}, "num_beams", "not supported"),
        (
            {"prompt": "a", "generate_config": {"stop_words_list": [[1, 2]]}},
            "generate_config.stop_words_list[0]",
            "text",
        ),
        (
            {"prompt": "a", "generate_config": {"return_incremental": True}},
            "generate_config.return_incremental",
            "needs",
        ),
        ({"prompt_batch": ["a"] * 60, "num_return_sequences": 4}, "num_return_sequences", "60 prompts with 4"),
    ],
)
def test_wrong_bodies(body: dict[str, Any], param: str, words: str) -> None:
    error = refused(**body)
    assert words in error.message
    assert error.param == param


def test_generate_config_in_its_three_places() -> None:
    config = {
        "max_new_tokens": 9, "min_new_tokens": 2, "top_k": [3], "top_p": [0.5], "temperature": 0.7, "random_seed": 5,
        "repetition_penalty": 1.1, "stop_words_str": ["x"], "stop_words_list": [[151645], [7]],
        "print_stop_words": True, "num_return_sequences": 2, "num_beams": 1, "adapter_name": None, "unheard_of": 1,
    }  # fmt: skip
    expected = SamplingParams(
        n=2, max_tokens=9, min_tokens=2, top_k=3, top_p=0.5, temperature=0.7, seed=5, repetition_penalty=1.1,
        stop=("x",), stop_token_ids=(151645, 7), include_stop_str_in_output=True,
    )  # fmt: skip
    for body in ({"generate_config": config}, {"generation_config": config}, config):
        assert parse(prompt="a", **body).prompts[0].request.sampling == expected
    wins = parse(prompt="a", generate_config={"top_k": 3, "gen_length": 4}, top_k=5)
    assert (wins.prompts[0].request.sampling.top_k, wins.prompts[0].request.sampling.max_tokens) == (5, 4)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_by_name(name: str) -> None:
    for quiet in (None, [], *REFUSED[name]):
        parse(prompt="a", generate_config={name: quiet})
    assert refused(prompt="a", generate_config={name: "something"}).param == f"generate_config.{name}"


def test_messages_are_a_conversation() -> None:
    wanted = parse(messages=[{"role": "user", "content": "<image>a"}], urls=["u"])
    (message,) = wanted.prompts[0].request.messages or ()
    assert message.content == (MediaSlot("image", 0), Text("a"))
    assert wanted.prompts[0].sources[0].url == "u"


def answered(wanted: RawRequest, *events: Any) -> Any:
    answer = RawAnswer("raw-1", "m", wanted)
    for event in events:
        answer.add(event)
    return json.loads(msgspec.json.encode(answer.body()))


def streamed(wanted: RawRequest, *events: Any) -> list[Any]:
    answer = RawAnswer("raw-1", "m", wanted)
    data = b"".join(answer.chunk(event) for event in events) + answer.end()
    assert data.endswith(b"data:[done]\r\n\r\n")
    return [json.loads(line.removeprefix("data:")) for line in data.decode().split("\r\n\r\n")[:-2]]


EVENTS = (
    Started("raw-1", 4, [1, 2, 3, 4]),
    Delta("raw-1", 0, "He", [5], num_cached_tokens=2),
    Delta("raw-1", 0, "", [6]),
    Delta("raw-1", 0, "llo", [7], finish_reason="stop"),
)


def test_one_answer() -> None:
    answer = answered(parse(prompt="a"), *EVENTS)
    assert answer["aux_info"].pop("cost_time") >= 0
    assert answer == {
        "response": "Hello",
        "finished": True,
        "aux_info": {"iter_count": 3, "input_len": 4, "output_len": 3, "prefix_len": 2},
    }
    ids = answered(parse(prompt="a", generate_config={"return_input_ids": 1, "return_output_ids": True}), *EVENTS)
    assert (ids["input_ids"], ids["output_ids"]) == ([[1, 2, 3, 4]], [[5, 6, 7]])


def test_streams_hold_all_text_or_what_is_new() -> None:
    for field in ("yield_generator", "stream"):
        events = streamed(parse(prompt="a", **{field: True}), *EVENTS)
        assert [(event["response"], event["finished"]) for event in events] == [("He", False), ("Hello", True)]
    config = {"yield_generator": True, "return_incremental": True}
    assert [e["response"] for e in streamed(parse(prompt="a", generate_config=config), *EVENTS)] == ["He", "llo"]


BATCH = (
    Started("raw-1-1", 6),
    Started("raw-1-0", 5),
    Delta("raw-1-1", 1, "b", [1], finish_reason="stop"),
    Delta("raw-1-0", 0, "a", [1], finish_reason="stop"),
)


def test_batches_and_sequences() -> None:
    whole = answered(parse(prompt_batch=["x", "y"]), *BATCH)
    assert [answer["response"] for answer in whole["response_batch"]] == ["a", "b"]
    assert [answer["aux_info"]["input_len"] for answer in whole["response_batch"]] == [5, 6]
    assert "response_batch" in answered(parse(prompt_batch=["x"]), *EVENTS)
    assert answered(parse(prompt=["x"]), *EVENTS)["response"] == "Hello"
    two = answered(parse(prompt="x", num_return_sequences=2), Started("raw-1", 1), *BATCH[2:])
    assert (two["response"], two["finished"]) == (["a", "b"], [True, True])
    assert len(two["aux_info"]) == 2
    assert answered(parse(prompt="x", num_return_sequences=1), *EVENTS)["response"] == ["Hello"]


@pytest.mark.parametrize(
    ("error", "number"),
    [(ContextLengthExceeded("x"), 511), (MediaError("x"), 903), (InvalidRequest("x"), 507), (SensoriumError("x"), 514)],
)
def test_errors_have_rtps_number_beside_the_other_forms(error: SensoriumError, number: int) -> None:
    body = error_body(error)
    assert (body["error_code"], body["message"], body["object"]) == (number, "x", "error")
    assert body["error"]["message"] == "x"
