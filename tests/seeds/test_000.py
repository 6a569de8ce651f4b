"""Seed 000: services on Ray, a Qwen3-VL registered as qwen-vl-2b, pictures by URL and data URL from curl and openai."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.running import Running, serve
from tests.examples.test_examples import EXAMPLES, run
from tests.seeds.serving import make_model
from tests.seeds.wire import Seen, encoded, parts, post, said

MODEL = "qwen-vl-2b"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The services as the document starts them, but for port and address, and the model as it registers it."""
    folder = tmp_path_factory.mktemp("s000")
    make_model(MODEL, folder / "Qwen3-VL-2B-Instruct")
    config = json.loads((folder / "Qwen3-VL-2B-Instruct" / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 262144  # as the real one has it
    (folder / "Qwen3-VL-2B-Instruct" / "config.json").write_text(json.dumps(config))
    file = folder / "Qwen3-VL-2B-Instruct" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_new_tokens": 128}))  # of requests that say nothing
    services = (str(EXAMPLES / "start_ray_services.py"),)
    variables = {"RAY_ADDRESS": "local", "RAY_TMPDIR": "/tmp"}
    line = ["--host", "127.0.0.1", "--allow-private-media"]
    with serve(line, folder / "home", services, variables) as started:
        registered = httpx.post(
            f"{started.url}/v1/models/register",
            headers={"Content-Type": "application/json"},
            content=REGISTRATION.replace("Qwen/Qwen3-VL-2B-Instruct", str(folder / "Qwen3-VL-2B-Instruct")),
            timeout=240,
        )
        assert registered.json()["status"] == "success", registered.text
        yield started


REGISTRATION = """{
    "alias": "qwen-vl-2b",
    "model_name": "Qwen/Qwen3-VL-2B-Instruct",
    "max_model_len": 8192,
    "gpu_memory_utilization": 0.5
  }"""
ONE_PICTURE = """{
  "model": "qwen-vl-2b",
  "messages": [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": "BASE/demo.jpeg"}},
    {"type": "text", "text": "请描述这张图片的内容。"}
  ]}],
  "max_tokens": 512
}"""
TWO_PICTURES = """{
  "model": "qwen-vl-2b",
  "messages": [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": "BASE/image1.jpg"}},
    {"type": "image_url", "image_url": {"url": "BASE/image2.jpg"}},
    {"type": "text", "text": "比较这两张图片的异同。"}
  ]}],
  "max_tokens": 512
}"""
TEXT_FIRST = """{
  "model": "qwen-vl-2b",
  "messages": [{"role": "user", "content": [
    {"type": "text", "text": "文本内容"},
    {"type": "image_url", "image_url": {"url": "BASE/image1.jpg"}}
  ]}]
}"""


def test_rows_01_and_03_the_model_is_placed_by_ray(running: Running) -> None:
    client = running.client()
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=2)
    (node,) = httpx.get(f"{running.url}/workers").json()["workers"]
    assert node["worker_url"].startswith("ray://")
    assert [one["alias"] for one in node["instances"].values()] == [MODEL]
    assert MODEL in [model.id for model in client.models.list().data]


def test_row_02_a_worker_joins_the_services(running: Running) -> None:
    joined = subprocess.Popen(
        [sys.executable, "-m", "sensorium.worker.service", "--worker-id", "worker-1"],
        env={**os.environ, "MANAGER_URL": running.url, "WORKER_PORT": "0", "SENSORIUM_HOME": str(running.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def active() -> bool:
        workers = httpx.get(f"{running.url}/workers").json()["workers"]
        return any(row["worker_id"] == "worker-1" and row["status"] == "active" for row in workers)

    try:
        running.until("joining", active, 90)
        body = json.loads(REGISTRATION) | {
            "alias": "there",
            "model_name": "tiny-vl",
            "max_model_len": 1024,
            "worker_id": "worker-1",
        }
        answer = httpx.post(f"{running.url}/v1/models/register", json=body, timeout=240).json()
        assert answer["status"] == "success", answer
        assert said(post(running, {"model": "there", "messages": [{"role": "user", "content": "Hello"}]}))
        rows = {row["worker_id"]: row for row in httpx.get(f"{running.url}/workers").json()["workers"]}
        assert [one["alias"] for one in rows["worker-1"]["instances"].values()] == ["there"]
        assert httpx.delete(f"{running.url}/v1/models/there", timeout=60).json()["status"] == "success"
    finally:
        joined.terminate()
        assert joined.wait(20) == 0


def test_row_04_text_alone(running: Running) -> None:
    answer = running.client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "你好"}], max_tokens=100
    )
    assert isinstance(answer.choices[0].message.content, str)


def test_rows_04_and_05_the_programs(running: Running, media: str) -> None:
    one, two, base = f"{media}/demo.jpeg", f"{media}/image1.jpg", f"{running.url}/v1"
    printed = run("multimodal_cases.py", "--base-url", base, "--image-url", one, "--image-url", two)
    assert "4 of 4 passed" in printed
    printed = run("multimodal_cases.sh", BASE_URL=base, IMAGE_URL=one, IMAGE2_URL=two, PICTURE_PORT="0")
    assert re.findall(r"^(\d)\. ", printed, re.M) == ["1", "2", "3", "4"]


def test_row_05_and_06_curl_one_picture(running: Running, media: str) -> None:
    body = ONE_PICTURE.replace("BASE", media)
    said(post(running, body))
    other = json.loads(body.replace("demo", "airplane"))
    assert Seen(running, json.loads(body)) != Seen(running, other)


def test_row_07_curl_two_pictures_without_a_flag(running: Running, media: str) -> None:
    body = TWO_PICTURES.replace("BASE", media)
    said(post(running, body))
    swapped = parts(("image", f"{media}/image2.jpg"), ("image", f"{media}/image1.jpg"), "比较这两张图片的异同。")
    assert Seen(running, json.loads(body)) != Seen(running, {"model": MODEL, "messages": [swapped]})


def test_row_07_a_picture_that_is_not_there_is_named_by_its_place(running: Running, media: str) -> None:
    error = post(
        running, TWO_PICTURES.replace("BASE/image2.jpg", f"{media}/nothing.jpg").replace("BASE", media), status=400
    )
    assert error["param"] == "messages[0].content[1].image_url"
    assert "Failed to load image from URL" in error["error"]["message"]


def test_row_08_openai_client_with_a_data_url(running: Running, media: str) -> None:
    url = f"data:image/jpeg;base64,{encoded('image1.jpg')}"
    message = parts(("image", url), "描述这张图片")
    answer = running.client().chat.completions.create(model=MODEL, messages=[message])  # type: ignore[list-item]
    assert isinstance(answer.choices[0].message.content, str)
    fetched = parts(("image", f"{media}/image1.jpg"), "描述这张图片")
    assert Seen(running, {"messages": [message]}) == Seen(running, {"messages": [fetched]})


def test_row_09_text_before_picture_stays_so(running: Running, media: str) -> None:
    body = TEXT_FIRST.replace("BASE", media)
    said(post(running, body))
    tokens = post(running, body, "/tokenize")["tokens"]
    text = post(running, {"tokens": tokens}, "/detokenize")["prompt"]
    assert text.index("文本内容") < text.index("<|vision_start|>")
    swapped = parts(("image", f"{media}/image1.jpg"), "文本内容")
    assert Seen(running, json.loads(body)) != Seen(running, {"messages": [swapped]})
