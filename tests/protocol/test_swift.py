"""swift's dialect: tags and lists become the parts that OpenAI's form would have had."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensorium.errors import InvalidRequest
from sensorium.protocol.body import parse_body
from sensorium.protocol.chat import ChatBody, parse_chat
from sensorium.protocol.parsed import Parsed
from sensorium.protocol.tokens import TokenizeBody, parse_tokenize
from sensorium.types import MediaSlot, Text


def parse(*contents: Any, **fields: Any) -> Parsed:
    """Contents are those of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    body = {"messages": messages, **fields}
    return parse_chat(parse_body(ChatBody, json.dumps(body).encode()), "m", "id")


def said(parsed: Parsed) -> list[list[str]]:
    """What each message holds: its texts, and the addresses of its media."""
    return [
        [
            part.text if isinstance(part, Text) else f"({part.kind} {parsed.sources[part.index].url})"
            for part in m.content
        ]
        for m in parsed.request.messages or ()
    ]


def refused(*contents: Any, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(*contents, **fields)
    return caught.value


def test_pairs_in_strings() -> None:
    parsed = parse("<img>http://a</img>图中是什么花？<video>http://v</video>", "是<audio>http://w</audio>玫瑰", "框出")
    assert said(parsed) == [
        ["(image http://a)", "图中是什么花？", "(video http://v)"],
        ["是", "(audio http://w)", "玫瑰"],
        ["框出"],
    ]
    assert [source.where for source in parsed.sources] == [
        "messages[0].content.<img>[0]",
        "messages[0].content.<video>[0]",
        "messages[1].content.<audio>[0]",
    ]
    assert [s.where for s in parse("<img>a.png</img><img>b.png</img>").sources] == [
        "messages[0].content.<img>[0]",
        "messages[0].content.<img>[1]",
    ]


def test_tags_take_the_lists_in_order_over_all_turns() -> None:
    parsed = parse("<image>描述<video>", "好<image>", "a<image>b", images=["1", "2", "3"], videos="v")
    assert said(parsed) == [["(image 1)", "描述", "(video v)"], ["好", "(image 2)"], ["a", "(image 3)", "b"]]
    assert [source.where for source in parsed.sources] == ["images[0]", "videos[0]", "images[1]", "images[2]"]
    slots = [p.index for m in parsed.request.messages or () for p in m.content if isinstance(p, MediaSlot)]
    assert slots == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["images", "urls"])
def test_missing_tags_stand_before_the_first_users_words(name: str) -> None:
    fields: dict[str, Any] = {name: ["1", "2"], "audios": ["w"]}
    assert said(parse("描述", "好", "再<image>来", **fields)) == [
        ["(image 1)", "(audio w)", "描述"],
        ["好"],
        ["再", "(image 2)", "来"],
    ]


def test_the_system_prompt_is_not_looked_into() -> None:
    messages = [
        {"role": "system", "content": "<image> <img>http://a</img>"},
        {"role": "user", "content": "x"},
        {"role": "tool", "content": "<image>"},
    ]
    body = {"messages": messages, "images": ["1"]}
    parsed = parse_chat(parse_body(ChatBody, json.dumps(body).encode()), "m", "id")
    assert said(parsed) == [["<image> <img>http://a</img>"], ["(image 1)", "x"], ["<image>"]]


def test_without_media_tags_are_one_text() -> None:
    for text in ("<image>a<video>b<audio>", "What is <img/>?"):
        assert said(parse(text)) == [[text]]
        assert said(parse(text, images=[], videos=None)) == [[text]]


def test_parts_of_a_list() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://p"}}
    text = {"type": "text", "text": "x<image>y<img>http://a</img>"}
    assert said(parse([part, text])) == [["(image http://p)", "x<image>y<img>http://a</img>"]]
    assert said(parse([part, text], images=["1"])) == [["(image http://p)", "x", "(image 1)", "y<img>http://a</img>"]]
    assert said(parse([text], images=["1", "2"])) == [["(image 1)", "x", "(image 2)", "y<img>http://a</img>"]]
    two = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert said(parse(two)) == [["a", "b"]]


def test_a_list_and_a_string_in_one_conversation() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://p"}}
    assert said(parse([part, {"type": "text", "text": "花？"}], "<box>(1,2),(3,4)</box>", "<img>b.png</img>再")) == [
        ["(image http://p)", "花？"],
        ["<box>(1,2),(3,4)</box>"],
        ["(image b.png)", "再"],
    ]


def test_more_tags_than_media_are_refused_with_numbers_and_places() -> None:
    error = refused("<image>a", "b", "中<image>c<image>", images=["1"])
    assert error.message == (
        "The messages have 3 <image> tags and `images` has 1 items. The tags: messages[0].content at character 0, "
        "messages[2].content at character 1, messages[2].content at character 9. Each tag needs one item; send as "
        "many, or leave the tags out."
    )
    assert (error.param, error.code) == ("messages[2].content", "media_tag_mismatch")
    assert refused("x<video>", images=["1"]).param == "messages[0].content"
    assert "and 95 more" in refused("<image>" * 100, images=["1"]).message
    assert "`images` has 0" in refused("<img>http://a</img><image>").message
    part = [{"type": "text", "text": "<audio><audio>"}]
    assert refused(part, audios=["1"]).param == "messages[0].content[0].text"


def test_media_for_nobody() -> None:
    body = {"messages": [{"role": "system", "content": "x"}], "images": ["1"]}
    with pytest.raises(InvalidRequest, match=r"`images\[0\]` belongs to a message of the user"):
        parse_chat(parse_body(ChatBody, json.dumps(body).encode()), "m", "id")


def test_half_a_pair_names_its_message() -> None:
    assert refused("x", "y", "<img>http://a").param == "messages[2].content"


def test_tokenize_reads_the_same() -> None:
    body = {"messages": [{"role": "user", "content": "<image>a<img>b.png</img>"}], "images": ["1"]}
    parsed = parse_tokenize(parse_body(TokenizeBody, json.dumps(body).encode()), "m", "id")
    assert said(parsed) == [["(image 1)", "a", "(image b.png)"]]
