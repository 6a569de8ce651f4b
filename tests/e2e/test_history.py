"""Conversations that send their media again with every turn: counted, kept in order, decoded and encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import openai
import pytest

from tests.checkpoints import make_checkpoint
from tests.clips import video
from tests.e2e.running import Running, serve
from tests.e2e.test_serve import picture
from tests.e2e.test_video import ask

MODEL = "tiny-history"
LIMITS = ["--limit_mm_per_prompt", "image=3", "--limit-mm-per-prompt", '{"video": {"count": 2}}']


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    make_checkpoint("qwen2_5_vl", folder / "checkpoint")
    arguments = [str(folder / "checkpoint"), "--served-model-name", MODEL, "--dtype", "float32", *LIMITS]
    with serve([*arguments, "--max-model-len", "2048"], folder / "home") as started:
        yield started


def image(number: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": picture(number)}}


def clip(count: int) -> dict[str, Any]:
    part: dict[str, Any] = ask(video(count))[0]["content"][0]
    return part


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def answer(running: Running, messages: list[dict[str, Any]]) -> str:
    reply = running.client().chat.completions.create(
        model=MODEL,
        messages=messages,  # type: ignore[arg-type]
        max_tokens=6,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    return reply.choices[0].message.content or ""


def counters(running: Running) -> Mapping[str, float]:
    running.metrics_now()
    return {name: running.metric(f"media_{name}") for name in ("decoded", "reused", "encoded")}


def added(running: Running, before: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in counters(running).items()}


def test_every_turn_sends_all_again_and_nothing_is_done_again(running: Running) -> None:
    before = counters(running)
    messages = [user(image(1), text("What is this?"))]
    messages += [{"role": "assistant", "content": answer(running, messages)}, user(text("And before?"), clip(20))]
    messages += [{"role": "assistant", "content": answer(running, messages)}, user(image(2), text("This?"))]
    messages += [{"role": "assistant", "content": answer(running, messages)}, user(text("Compare them."))]
    last = answer(running, messages)
    # Turns: 1 new; 1 old + 1 new; 2 old + 1 new; 3 old.
    assert added(running, before) == {"decoded": 3, "reused": 6, "encoded": 3}
    before = counters(running)
    assert answer(running, messages) == last
    assert added(running, before) == {"decoded": 0, "reused": 3, "encoded": 0}


def test_the_same_item_twice_in_one_request_is_one(running: Running) -> None:
    before = counters(running)
    answer(running, [user(image(11), text("and"), image(11), text("and"), clip(24), clip(24), text("?"))])
    assert added(running, before) == {"decoded": 2, "reused": 2, "encoded": 2}


def test_parts_keep_their_order(running: Running) -> None:
    """Where text, pictures and clips lie in the prompt, told by /tokenize; and another order is another answer."""
    parts = [text("one"), image(21), text("two"), clip(20), text("three"), image(22), text("four")]
    body = {"model": MODEL, "messages": [user(*parts)], "return_token_strs": True}
    told = httpx.post(f"{running.url}/tokenize", json=body, timeout=60).json()
    seen = ""
    for string in told["token_strs"]:
        seen += {"<|image_pad|>": "I", "<|video_pad|>": "V"}.get(string, string)
    for kind in "IV":
        while kind * 2 in seen:
            seen = seen.replace(kind * 2, kind)
    between = "<|vision_start|>{}<|vision_end|>".format
    assert f"one{between('I')}two{between('V')}three{between('I')}four" in seen
    assert [item["type"] for item in told["media"]] == ["image", "video", "image"]
    assert [item["where"].split(".")[1] for item in told["media"]] == ["content[1]", "content[3]", "content[5]"]
    swapped = [text("one"), image(22), text("two"), clip(20), text("three"), image(21), text("four")]
    assert answer(running, [user(*parts)]) != answer(running, [user(*swapped)])


def test_limits_count_the_whole_history(running: Running) -> None:
    turn = {"role": "assistant", "content": "Yes."}
    three = [user(image(31), image(32), text("?")), turn, user(clip(20), image(33), text("?"))]
    assert answer(running, three)
    with pytest.raises(openai.BadRequestError, match=r"At most 3 image\(s\) may be provided") as refused:
        answer(running, [*three, turn, user(text("and"), image(31))])
    assert (refused.value.param, refused.value.code) == ("messages[4].content[1].image_url", "too_many_media")
    with pytest.raises(openai.BadRequestError, match=r"At most 2 video\(s\)") as refused:
        answer(running, [user(clip(20)), turn, user(clip(20)), turn, user(clip(20))])
    assert refused.value.param == "messages[4].content[0].video_url"
    card: dict[str, Any] = running.client().models.retrieve(MODEL).to_dict()
    assert card["limit_mm_per_prompt"] == {"image": 3, "video": 2}
