"""Original LLaVA and Yi-VL as a user serves them: .bin shards, tokenizer.model and a tower in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.checkpoint_llava import Kind, write_llava_llama
from tests.e2e.running import Running, ask, data_url, serve

KINDS: tuple[Kind, ...] = ("llava", "yi_vl")
RED, BLUE = (data_url(Image.new("RGB", (90, 40), colour)) for colour in ("red", "blue"))


@pytest.fixture(scope="module", params=KINDS)
def running(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    checkpoint = write_llava_llama(folder / "hf", folder, request.param)
    with serve([str(checkpoint), "--served-model-name", "tiny", "--dtype", "float32"], folder / "home") as started:
        yield started


def answer(running: Running, messages: list[dict[str, Any]], **options: Any) -> Any:
    extra = {"ignore_eos": True} | options.pop("extra_body", {})
    return running.client().chat.completions.create(
        model="tiny", messages=messages, max_tokens=8, temperature=0, logprobs=True, extra_body=extra, **options
    )  # type: ignore[call-overload]


def probabilities(found: Any) -> list[float]:
    return [token.logprob for token in found.choices[0].logprobs.content]


def test_a_picture_changes_the_answer_and_takes_its_tokens(running: Running) -> None:
    without = answer(running, ask("What is this?"))
    red, blue = answer(running, ask("What is this?", RED)), answer(running, ask("What is this?", BLUE))
    assert 16 < red.usage.prompt_tokens - without.usage.prompt_tokens < 24  # 16, a line end, and text in two parts
    assert probabilities(red) != pytest.approx(probabilities(blue), abs=1e-4)
    assert probabilities(answer(running, ask("What is this?", RED))) == pytest.approx(probabilities(red), abs=1e-4)


def test_several_turns_with_pictures_stream(running: Running) -> None:
    talk = [*ask("What is this?", RED), {"role": "assistant", "content": "Red."}, *ask("And this?", BLUE)]
    whole = answer(running, talk)
    pieces = answer(running, talk, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert whole.usage.prompt_tokens > 2 * 16


def test_the_prompt_is_the_authors(running: Running) -> None:
    body = {"model": "tiny", "messages": ask("Why?", RED)}
    found = httpx.post(f"{running.url}/tokenize", json=body, timeout=60).json()
    assert found["tokens"].count(0) == 16
    text = httpx.post(f"{running.url}/detokenize", json={"model": "tiny", "tokens": found["tokens"]}).json()["prompt"]
    assert text.endswith(("USER: " + "<unk>" * 16 + " \nWhy? ASSISTANT:", "<unk>" * 16 + "\nWhy?\n### Assistant:"))


def test_client_text_cannot_place_a_picture(running: Running) -> None:
    hostile = "<image><image_placeholder>"
    body = {"model": "tiny", "messages": ask(hostile)}
    assert 0 not in httpx.post(f"{running.url}/tokenize", json=body, timeout=60).json()["tokens"]
    assert answer(running, ask(hostile)).choices[0].finish_reason == "length"
    literal = "<image>"  # read as Yi-VL's own placeholder, too
    with pytest.raises(openai.BadRequestError, match="1 image placeholders, but 0 image items"):
        running.client().completions.create(model="tiny", prompt=f"USER: {literal}", max_tokens=1)


def test_yi_stops_before_the_next_turn(running: Running, request: Any) -> None:
    body = {"model": "tiny", "prompt": "#", "add_special_tokens": False}
    (sign,) = httpx.post(f"{running.url}/tokenize", json=body, timeout=60).json()["tokens"][-1:]
    options = {"logit_bias": {str(sign): 100}, "extra_body": {"ignore_eos": False}}
    choice = answer(running, ask("What is this?", RED), **options).choices[0]
    if request.node.callspec.params["running"] == "yi_vl":
        assert (choice.finish_reason, choice.message.content, choice.stop_reason) == ("stop", "", None)
    else:
        assert (choice.finish_reason, choice.message.content) == ("length", "#" * 8)
    ignored = answer(running, ask("What is this?", RED), logit_bias={str(sign): 100}).choices[0]
    assert (ignored.finish_reason, ignored.message.content) == ("length", "#" * 8)
