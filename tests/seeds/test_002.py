"""Seed 002: MiniCPM-V 2.6 behind `vllm serve`: a key, pictures, a video in a short context, several turns."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.clips import video
from tests.e2e.running import Running, serve
from tests.examples.test_examples import run
from tests.seeds.serving import FILES, make_model
from tests.seeds.wire import Seen, encoded, parts

KEY = "token-abc123"
EXTRA = {"stop_token_ids": [1, 151645]}
ROW_16 = (
    f"--dtype auto --max-model-len 2048 --api-key {KEY} --gpu_memory_utilization 0.9 --trust-remote-code "
    "--max-num-batched-tokens 2048"
)
ROW_19 = (
    f"--dtype auto --max-model-len 4096 --api-key {KEY} --gpu_memory_utilization 0.9 --trust-remote-code "
    """--limit-mm-per-prompt '{"video": 3}'"""
)
ROW_20 = (
    f"--dtype auto --max-model-len 4096 --api-key {KEY} --gpu_memory_utilization 0.9 --trust-remote-code "
    """--limit-mm-per-prompt '{"image":5, "video": 2}'"""
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s002") / "MiniCPM-V-2_6"
    make_model("MiniCPM-V-2_6", path)
    return path


@pytest.fixture(scope="module")
def short(model: Path) -> Iterator[Running]:
    """The server of row 16, and its flags as they stand there."""
    with serve([str(model), *shlex.split(ROW_16)], model.with_name("home"), api_key=KEY) as started:
        yield started


@pytest.fixture(scope="module")
def mixed(model: Path) -> Iterator[Running]:
    """The server of row 20."""
    with serve([str(model), *shlex.split(ROW_20)], model.with_name("home"), api_key=KEY) as started:
        yield started


def data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def ask(running: Running, model: Path, messages: list[Any]) -> Any:
    return running.client(api_key=KEY).chat.completions.create(model=str(model), messages=messages, extra_body=EXTRA)


def test_rows_16_and_17_a_picture_behind_text_and_a_key(short: Running, model: Path) -> None:
    message = parts("请描述这张图片", ("image", f"data:image/jpeg;base64,{encoded('airplane.jpeg')}"))
    answer = ask(short, model, [message])
    assert isinstance(answer.choices[0].message.content, str)
    other = parts("请描述这张图片", ("image", f"data:image/jpeg;base64,{encoded('cat.png')}"))
    assert Seen(short, {"messages": [message]}, KEY) != Seen(short, {"messages": [other]}, KEY)
    for key in ("EMPTY", "token-abc12"):
        with pytest.raises(openai.AuthenticationError):
            short.client(api_key=key).models.list()


def test_row_17_a_stop_token_is_honoured_as_it_is(short: Running, model: Path) -> None:
    message = parts("请描述这张图片")
    body = {"messages": [message], "max_tokens": 1, "temperature": 0, "logprobs": True, "ignore_eos": True}
    token = Seen(short, body, KEY).tokens[0]
    ids = short.client(api_key=KEY).post("/../tokenize", body={"prompt": token}, cast_to=object)
    (first,) = ids["tokens"]  # type: ignore[index]
    answer = short.client(api_key=KEY).chat.completions.create(
        model=str(model),
        messages=[message],  # type: ignore[list-item]
        temperature=0,
        extra_body={"stop_token_ids": [1, first], "ignore_eos": True},
    )
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("", "stop")
    assert choice.model_extra == {"stop_reason": first}


def test_row_18_a_video_is_fitted_into_the_pictures_server(short: Running, model: Path) -> None:
    clip = data_url("video/mp4", video(120, rate=1))
    system = {"role": "system", "content": "You are a helpful assistant."}
    answer = ask(short, model, [system, parts("请描述这个视频", ("video", clip))])
    assert isinstance(answer.choices[0].message.content, str)
    assert answer.usage.prompt_tokens < 2048
    words = short.client(api_key=KEY).chat.completions.create(
        model=str(model),
        messages=[system, parts("请描述这个视频")],
        max_tokens=1,  # type: ignore[list-item]
    )
    assert answer.usage.prompt_tokens > words.usage.prompt_tokens + 20  # type: ignore[union-attr]


def test_rows_20_and_21_turns_with_files_and_without(mixed: Running, model: Path) -> None:
    messages: list[Any] = [{"role": "system", "content": "You are a helpful assistant."}]
    picture = ("image", f"data:image/png;base64,{encoded('cat.png')}")
    clip = ("video", data_url("video/mp4", video(6)))
    prompts = []
    for content in ([picture], [], [clip], [("image", f"data:image/webp;base64,{encoded('rose.jpg')}")]):
        messages.append(parts("这是什么？", *content))
        answer = ask(mixed, model, messages)
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        prompts.append(answer.usage.prompt_tokens)
    assert prompts == sorted(prompts)
    assert len(set(prompts)) == len(prompts)


def test_row_20_limits_count_the_whole_history(mixed: Running, model: Path) -> None:
    clip = ("video", data_url("video/mp4", video(4)))
    two = [parts("一", clip), {"role": "assistant", "content": "好"}, parts("二", clip)]
    assert isinstance(ask(mixed, model, two).choices[0].message.content, str)
    with pytest.raises(openai.BadRequestError, match=r"At most 2 video\(s\) may be provided in one request"):
        ask(mixed, model, [*two, {"role": "assistant", "content": "好"}, parts("三", clip)])
    with pytest.raises(openai.BadRequestError, match=r"At most 5 image\(s\)"):
        ask(mixed, model, [parts(*[("image", f"data:image/png;base64,{encoded('cat.png')}")] * 6)])


def test_row_19_a_limit_for_videos_alone(model: Path) -> None:
    clip = ("video", data_url("video/mp4", video(2)))
    turns = [parts("一", clip), {"role": "assistant", "content": "好"}]
    with serve([str(model), *shlex.split(ROW_19)], model.with_name("home"), api_key=KEY) as running:
        assert isinstance(ask(running, model, [*turns, parts("二", clip, clip)]).choices[0].message.content, str)
        with pytest.raises(openai.BadRequestError, match=r"At most 3 video\(s\) may be provided in one request"):
            ask(running, model, [*turns, parts("二", clip, clip, clip)])
        pictures = parts("三", *[("image", f"data:image/png;base64,{encoded('cat.png')}")] * 6)
        assert isinstance(ask(running, model, [pictures]).choices[0].message.content, str)


def test_row_21_the_program(mixed: Running, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(FILES["cat.png"])
    (tmp_path / "baby.mp4").write_bytes(video(6))
    turns = [("这是什么？", "cat.png"), ("还有呢？", None), ("视频里有什么？", "baby.mp4")]
    typed = "".join(f"{text}\ny\n{tmp_path / file}\n" if file else f"{text}\nn\n" for text, file in turns) + "exit\n"
    stops = ["--stop-token-ids", *map(str, EXTRA["stop_token_ids"])]
    printed = run("chat_with_files.py", "--base-url", f"{mixed.url}/v1", "--api-key", KEY, *stops, typed=typed)
    assert printed.count("MiniCPM-V-2_6: ") == 3
