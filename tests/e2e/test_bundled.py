"""The model that comes with the package sees: change the picture and the answer changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from PIL import Image, ImageDraw

from sensorium import LLM, SamplingParams
from tests.e2e.running import ask, data_url


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("tiny-vl") as loaded:
        yield loaded


def picture(shape: str, colour: str, size: tuple[int, int] = (400, 300)) -> str:
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    width, height = size
    box = (width // 2 - 90, height // 2 - 90, width // 2 + 90, height // 2 + 90)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    else:
        draw.rectangle(box, fill=colour)
    return data_url(image)


def answer(llm: LLM, question: str, *pictures: str) -> str:
    result = llm.chat(ask(question, *pictures), SamplingParams(temperature=0, max_tokens=64), use_tqdm=False)
    return result[0].outputs[0].text


@pytest.mark.parametrize(("shape", "zh_shape"), [("circle", "圆"), ("square", "方")])
@pytest.mark.parametrize(("colour", "zh_colour"), [("red", "红"), ("blue", "蓝"), ("green", "绿")])
def test_it_names_what_it_sees_in_the_language_of_the_question(
    llm: LLM, shape: str, zh_shape: str, colour: str, zh_colour: str
) -> None:
    shown = picture(shape, colour)
    english = answer(llm, "What is in this picture?", shown)
    assert colour in english
    assert shape in english
    chinese = answer(llm, "这张图里有什么？", shown)
    assert zh_colour in chinese
    assert zh_shape in chinese


def test_what_became_of_the_pictures_is_told(llm: LLM) -> None:
    shown = [picture("circle", "red"), picture("square", "blue", (280, 196))]
    (output,) = llm.chat(ask("How do they differ?", *shown), SamplingParams(max_tokens=1), use_tqdm=False)
    assert [use.size for use in output.media] == [(300, 400), (196, 280)]
    ranges = output.multi_modal_placeholders["image"]
    assert [(use.offset, use.num_tokens) for use in output.media] == [(each.offset, each.length) for each in ranges]
    for each in ranges:
        assert len(set(output.prompt_token_ids[each.offset : each.offset + each.length])) == 1
        assert output.prompt_token_ids[each.offset - 1] != output.prompt_token_ids[each.offset]
    assert [use.where for use in output.media] == [f"messages[0].content[{n}].image_url" for n in (0, 1)]


def test_it_says_what_it_is(llm: LLM) -> None:
    assert "tiny-vl" in answer(llm, "Who are you?")
    assert "tiny-vl" in answer(llm, "你是谁？")


def film(path: Path, *, to_the_right: bool) -> None:
    """A red circle crosses a white picture in two seconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        places = range(60, 260, 10)
        for x in places if to_the_right else reversed(places):
            image = Image.new("RGB", (320, 240), "white")
            ImageDraw.Draw(image).ellipse((x - 45, 75, x + 45, 165), fill="red")
            output.mux(stream.encode(av.VideoFrame.from_image(image)))
        output.mux(stream.encode(None))


@pytest.mark.parametrize(("to_the_right", "word"), [(True, "right"), (False, "left")])
def test_a_video_in_the_terminal(to_the_right: bool, word: str, tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", to_the_right=to_the_right)
    line = [
        sys.executable,
        "-m",
        "sensorium",
        "run",
        "What happens in the video?",
        "--video",
        str(tmp_path / "film.mp4"),
    ]
    done = subprocess.run([*line, "--temperature", "0"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "red circle" in done.stdout
    assert word in done.stdout
