"""LLM on the bundled model: every form of prompt, picture and video gives the answer that the others give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium import LLM, SamplingParams
from sensorium.errors import InvalidRequest
from tests.e2e.running import ask, data_url

DOCS = Path(__file__).parents[2] / "docs"
SHAPES = "The picture shows a red circle, a green triangle and a blue square."
MARKER = "<|vision_start|><|image_pad|><|vision_end|>"
GREEDY = SamplingParams(temperature=0, max_tokens=64)
QUESTION = "What is in this picture?"


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(
        "tiny-vl",
        max_model_len=2048,
        max_num_seqs=4,
        limit_mm_per_prompt={"image": 2},
        allowed_local_media_path=str(DOCS),
        trust_remote_code=True,
        disable_mm_preprocessor_cache=True,
    ) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.open(DOCS / "shapes.png").convert("RGB")


def prompt(llm: LLM, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    return str(llm.get_tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def said(outputs: Any) -> list[str]:
    return [output.outputs[0].text for output in outputs]


def test_text_and_ids_are_the_same_prompt(llm: LLM, image: Image.Image) -> None:
    text = prompt(llm, f"{MARKER}{QUESTION}")
    ids = llm.get_tokenizer().encode(text, add_special_tokens=False)
    media = {"image": image}
    (by_text,) = llm.generate({"prompt": text, "multi_modal_data": media}, GREEDY)
    (by_ids,) = llm.generate({"prompt_token_ids": ids, "multi_modal_data": media}, GREEDY)
    assert by_text.outputs[0].text == by_ids.outputs[0].text == SHAPES
    assert by_text.prompt_token_ids == by_ids.prompt_token_ids
    assert by_text.outputs[0].finish_reason == "stop"
    assert by_text.prompt == text


def test_forms_of_a_picture(llm: LLM, image: Image.Image) -> None:
    text = prompt(llm, f"{MARKER}{QUESTION}")
    forms = (image, [image], np.asarray(image), (image,))
    inputs: Any = [{"prompt": text, "multi_modal_data": {"image": form}} for form in forms]
    assert said(llm.generate(inputs, GREEDY)) == [SHAPES] * len(forms)
    parts = ({"type": "image", "image": image}, {"type": "image_url", "image_url": {"url": data_url(image)}})
    local = {"type": "image_url", "image_url": {"url": (DOCS / "shapes.png").as_uri()}}
    for part in (*parts, local):
        content = [part, {"type": "text", "text": QUESTION}]
        assert said(llm.chat([{"role": "user", "content": content}], GREEDY)) == [SHAPES]


def test_several_pictures_and_their_limit(llm: LLM, image: Image.Image) -> None:
    star = Image.open(DOCS / "star.png")
    text = prompt(llm, f"{MARKER}\n{MARKER}\nWhat is in the second picture?")
    (output,) = llm.generate({"prompt": text, "multi_modal_data": {"image": [image, star]}}, GREEDY)
    assert "star" in output.outputs[0].text
    (swapped,) = llm.generate({"prompt": text, "multi_modal_data": {"image": [star, image]}}, GREEDY)
    assert "star" not in swapped.outputs[0].text
    with pytest.raises(InvalidRequest, match="At most 2 image"):
        llm.generate({"prompt": text + MARKER, "multi_modal_data": {"image": [image] * 3}}, GREEDY)


def test_processor_options_change_the_pictures_tokens(llm: LLM, image: Image.Image) -> None:
    text = prompt(llm, f"{MARKER}{QUESTION}")
    inputs: Any = [
        {"prompt": text, "multi_modal_data": {"image": image}, "mm_processor_kwargs": kwargs}
        for kwargs in (None, {"max_pixels": 64 * 64 * 3})
    ]
    usual, smaller = llm.generate(inputs, GREEDY)
    assert len(smaller.prompt_token_ids) < len(usual.prompt_token_ids)
    (by_chat,) = llm.chat(ask(QUESTION, data_url(image)), GREEDY, mm_processor_kwargs={"max_pixels": 64 * 64 * 3})
    assert len(by_chat.prompt_token_ids) == len(smaller.prompt_token_ids)


def test_forms_of_a_video(llm: LLM) -> None:
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    frames[:, 16:48, 16:48, 0] = 255
    text = prompt(llm, "<|vision_start|><|video_pad|><|vision_end|>What is in this video?")
    forms: tuple[Any, ...] = (frames, list(frames), [Image.fromarray(frame) for frame in frames], (frames, {"fps": 2}))
    inputs: Any = [{"prompt": text, "multi_modal_data": {"video": form}} for form in forms]
    outputs = llm.generate(inputs, GREEDY)
    assert len({tuple(output.prompt_token_ids) for output in outputs[:3]}) == 1
    assert len(set(said(outputs[:3]))) == 1
    assert said(outputs)[0]


def test_stops(llm: LLM, image: Image.Image) -> None:
    tokenizer = llm.get_tokenizer()
    text = prompt(llm, f"{MARKER}{QUESTION}")
    green = tokenizer.encode(" green", add_special_tokens=False)[0]
    inputs: Any = {"prompt": text, "multi_modal_data": {"image": image}}
    sampling = SamplingParams(temperature=0, max_tokens=64, stop_token_ids=[green])
    (output,) = llm.generate(inputs, sampling)
    answer = output.outputs[0]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", green)
    assert SHAPES.startswith(answer.text)
    assert "green" not in answer.text
    (output,) = llm.generate(prompt(llm, "Who are you?"), SamplingParams(temperature=0))
    assert (output.outputs[0].finish_reason, len(output.outputs[0].token_ids)) == ("length", 16)


def test_a_template_of_the_callers_own(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Who are you?"}]
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    end = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    (output,) = llm.chat(messages, GREEDY, chat_template=template + end)
    assert output.outputs[0].text.startswith("I am tiny-vl")
    (without,) = llm.chat(messages, GREEDY, chat_template=template + end, add_generation_prompt=False)
    assert output.prompt == without.prompt + "<|im_start|>assistant\n"
    begun = [*messages, {"role": "assistant", "content": "I am tiny-vl, a small"}]
    (continued,) = llm.chat(begun, GREEDY, add_generation_prompt=False, continue_final_message=True)
    assert continued.prompt.endswith("I am tiny-vl, a small")
    assert "model" in continued.outputs[0].text
