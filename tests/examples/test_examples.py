"""Every program of examples/, as a user runs it: on the bundled model, or on a tiny one of the family it is for."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.checkpoints import make_checkpoint
from tests.clips import sound, tone, video
from tests.e2e.running import Running, serve
from tests.minicpm_checkpoints import make_minicpm

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PICTURE, STAR = str(ROOT / "docs" / "shapes.png"), str(ROOT / "docs" / "star.png")
SHAPES = "The picture shows a red circle, a green triangle and a blue square."
COUNT = "There are 3 shapes in the picture."
QUESTIONS = {
    "image": ["What is in this picture?", "How many shapes are there?"],
    "video": ["Which way does the circle move?", "What is in this video?"],
}
BOTH = QUESTIONS["image"]


def run(name: str, *arguments: str, typed: str = "", **environment: str) -> str:
    """Return what an example prints; it ends with 0."""
    command = [str(EXAMPLES / name)] if name.endswith(".sh") else [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(
        [*command, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(["--allow-private-media"], tmp_path_factory.mktemp("home")) as started:
        yield started


def port_of(running: Running) -> str:
    return str(urlsplit(running.url).port)


def answers(printed: str) -> list[str]:
    """Return the lines behind "response: "."""
    return re.findall(r"^response: (.*)$", printed, re.MULTILINE)


def check_cases(printed: str) -> None:
    one, two, text, file = re.findall(r"^\d\. [^:]+: (.*)$", printed, re.MULTILINE)
    assert one == SHAPES
    assert "star" in two
    assert "circle" not in two
    assert "tiny-vl" in text
    assert all(word in file for word in ("红", "绿", "蓝"))


def test_every_example_is_run() -> None:
    services = Path(__file__).parent.parent / "seeds" / "test_000.py"  # starts Ray, once for all that needs it
    text = Path(__file__).read_text() + services.read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")]
    assert len(names) >= 10
    assert [name for name in names if f'"{name}"' not in text] == []


def test_the_four_cases(running: Running) -> None:
    printed = run("multimodal_cases.py", "--base-url", f"{running.url}/v1")
    check_cases(printed)
    assert "4 of 4 passed" in printed


def test_the_four_cases_with_curl(running: Running) -> None:
    assert shutil.which("curl"), "curl is needed; install it"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check_cases(run("multimodal_cases.sh", BASE_URL=f"{running.url}/v1", PICTURE_PORT=str(port)))


def test_a_request_without_a_model(running: Running) -> None:
    assert SHAPES in run("plain_request.py", PICTURE, BOTH[0], "--port", port_of(running))


@pytest.mark.parametrize("stream", ["0", "1"])
def test_a_request_script(running: Running, stream: str) -> None:
    arguments = ["--model-path", "tiny-vl", "--image-path", PICTURE, "--text", BOTH[0], "--stream", stream]
    printed = run("online_serving.py", *arguments, "--docker-ip", "127.0.0.1", "--served-port", port_of(running))
    assert SHAPES in printed
    assert ('"finish_reason"' in printed) == (stream == "0")


def test_a_conversation_with_files(running: Running) -> None:
    turns = [(BOTH[0], PICTURE), (BOTH[1], None), ("What is in the second picture?", STAR), ("hello", "/no/such/file")]
    typed = "".join(f"{text}\ny\n{path}\n" if path else f"{text}\nn\n" for text, path in turns) + "exit\n"
    printed = run("chat_with_files.py", "--base-url", f"{running.url}/v1", typed=typed)
    first, second, third, _ = re.findall(r"tiny-vl: (.*)$", printed, re.MULTILINE)
    assert (first, second) == (SHAPES, COUNT)
    assert "star" in third
    assert "There is no file /no/such/file" in printed


def test_openai_client(running: Running) -> None:
    printed = run("openai_client.py", PICTURE, *BOTH, "--base-url", f"{running.url}/v1")
    assert answers(printed) == [SHAPES, COUNT]


@pytest.mark.parametrize("tag", ["list", "img"])
def test_swift_client(running: Running, tag: str) -> None:
    printed = run("swift_client.py", "--port", port_of(running), "--image", PICTURE, "--tag", tag)
    assert "model_type: tiny-vl" in printed
    assert answers(printed) == [SHAPES, COUNT]


def test_swift_client_with_a_picture_in_each_turn(running: Running) -> None:
    pictures = ["--image", PICTURE, "--image", STAR, "--question", BOTH[0], "--question", BOTH[0]]
    first, second = answers(run("swift_client.py", "--port", port_of(running), *pictures))
    assert first == SHAPES
    assert "star" in second


def test_both_clients_send_videos_alike(running: Running, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(video(20))
    asked = ["What is in this video?", "And now?"]
    questions = ["--question", asked[0], "--question", asked[1]]
    by_swift = answers(run("swift_client.py", "--port", port_of(running), "--video", str(clip), *questions))
    by_openai = answers(run("openai_client.py", str(clip), *asked, "--base-url", f"{running.url}/v1"))
    assert by_swift == by_openai
    assert all(by_swift)


def test_both_clients_send_sounds_alike(tmp_path: Path) -> None:
    make_checkpoint("qwen2_audio", tmp_path / "model")
    clip = tmp_path / "weather.wav"
    clip.write_bytes(sound(tone(1.0)))
    arguments = [str(tmp_path / "model"), "--served-model-name", "hears", "--dtype", "float32"]
    with serve([*arguments, "--max-model-len", "512"], tmp_path / "home") as running:
        asked = ["What is said?", "Is it a man?"]
        few = ["--max-tokens", "8"]  # random weights find no end
        questions = ["--question", asked[0], "--question", asked[1], *few]
        by_swift = run("swift_client.py", "--port", port_of(running), "--audio", str(clip), *questions)
        by_openai = run("openai_client.py", str(clip), *asked, "--base-url", f"{running.url}/v1", *few)
    assert by_swift.removeprefix("model_type: hears\n") == by_openai
    assert len(by_openai) > len("".join(asked)) + 50


def test_pipeline() -> None:
    lines = run("pipeline.py", "--url", PICTURE).splitlines()
    assert lines[-1] == repr([SHAPES])
    assert len(lines) > 5
    inline = "<|im_start|>user\\n<img>docs/star.png</img>What is in this picture?<|im_end|>\\n<|im_start|>assistant\\n"
    assert "star" in run("pipeline.py", "--prompt", inline).splitlines()[-1]


def test_offline_image() -> None:
    printed = run("offline_image.py", "--image", PICTURE, "--batch", "2", "--temperature", "0")
    assert printed.splitlines() == [SHAPES] * 2
    second = ["--question", "What is in the second picture?", "--temperature", "0"]
    assert "star" in run("offline_image.py", "--image", PICTURE, STAR, *second)


def test_vision_language_on_the_bundled_model() -> None:
    printed = run("vision_language.py", "--temperature", "0").splitlines()
    assert printed[1].strip() == SHAPES
    assert printed[3].strip() == COUNT
    assert "left" in printed[5]
    assert "square" in printed[7]


@pytest.mark.parametrize(
    ("model_type", "family", "modality"),
    [
        ("llava", "llava", "image"),
        ("minicpmv", "minicpm", "image"),
        ("minicpmv", "minicpm", "video"),
    ],
)
def test_vision_language_on_other_families(model_type: str, family: str, modality: str, tmp_path: Path) -> None:
    if family == "minicpm":
        make_minicpm("2.6", tmp_path)
    else:
        make_checkpoint(family, tmp_path)
    arguments = ["--num-prompts", "2", "--num-frames", "4", "--max-tokens", "8", "--temperature", "0"]
    printed = run("vision_language.py", "-m", model_type, "--model", str(tmp_path), "--modality", modality, *arguments)
    asked = QUESTIONS[modality]
    assert [printed.count(f"{question}\n    ") for question in asked] == [1, 1]
    assert len(printed) > len("".join(asked)) + 20  # random weights say something, whatever it is
