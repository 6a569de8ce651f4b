"""Videos as a user sends them: a real server, the real openai client, and a file as a data URL."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.checkpoints import make_checkpoint
from tests.clips import HEIGHT, WIDTH, video
from tests.e2e.running import Running, serve

MODEL = "tiny-video"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    make_checkpoint("qwen2_5_vl", folder / "checkpoint")
    arguments = [str(folder / "checkpoint"), "--served-model-name", MODEL, "--dtype", "float32"]
    with serve([*arguments, "--max-model-len", "2048"], folder / "home") as started:
        yield started


def ask(data: bytes, question: str = "What happens?") -> Any:
    url = "data:video/mp4;base64," + base64.b64encode(data).decode()
    return [
        {
            "role": "user",
            "content": [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}],
        }
    ]


def streamed(running: Running, messages: Any, **extra: Any) -> tuple[str, int]:
    """The answer's text, and how many tokens the prompt had."""
    chunks = running.client().chat.completions.create(
        model=MODEL,
        messages=messages,
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True, **extra},
    )
    text, tokens = "", 0
    for chunk in chunks:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        tokens = chunk.usage.prompt_tokens if chunk.usage else tokens
    return text, tokens


def test_a_clip_is_answered_and_decoded_once(running: Running) -> None:
    running.metrics_now()
    decoded, reused = running.metric("media_decoded"), running.metric("media_reused")
    messages = ask(video(40))
    first = streamed(running, messages)
    assert first[0]
    assert first == streamed(running, messages)
    running.metrics_now()
    assert running.metric("media_decoded") == decoded + 1
    assert running.metric("media_reused") == reused + 1


def test_frames_are_counted_as_asked(running: Running) -> None:
    messages = ask(video(40))
    sizes = {name: streamed(running, messages, mm_processor_kwargs=given)[1] for name, given in KWARGS.items()}
    pair = (sizes["all"] - sizes["few"]) // 6
    assert pair > 0
    assert sizes["fps"] == sizes["few"]
    assert sizes["most"] == sizes["few"]


KWARGS: dict[str, dict[str, float]] = {
    "all": {"num_frames": 16},
    "few": {"num_frames": 4},
    "most": {"num_frames": 16, "max_frames": 4},
    "fps": {"fps": 0.25},  # one frame in 4 s, and four at least
}


def test_the_frames_that_were_looked_at_are_told(running: Running) -> None:
    given: dict[str, Any] = {
        "model": MODEL,
        "messages": ask(video(40)),  # 10 frames a second
        "max_tokens": 2,
        "extra_body": {"mm_processor_kwargs": {"num_frames": 4}},
    }
    usage = running.client().chat.completions.create(**given).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    extra = usage.prompt_tokens_details.model_extra or {}
    (told,) = extra["media"]
    assert told["type"] == "video"
    assert told["where"] == "messages[0].content[0].video_url"
    assert (told["width"], told["height"]) == (WIDTH, HEIGHT)
    # The grid of a pair of frames, merged two by two: one token is 28 x 28 pixels of both.
    assert told["tokens"] == 2 * told["resized_width"] // 28 * told["resized_height"] // 28
    assert extra["multimodal_tokens"] == {"video": told["tokens"]}
    assert told["timestamps"] == [0.0, 1.3, 2.6, 3.9]
    assert told["frames"] == 4

    chunks = list(
        running.client().chat.completions.create(**given, stream=True, stream_options={"include_usage": True})
    )
    last = chunks[-1].usage
    assert last is not None
    assert last.prompt_tokens_details is not None
    assert (last.prompt_tokens_details.model_extra or {})["media"] == [told]
    counted = httpx.post(
        f"{running.url}/tokenize",
        json={"model": MODEL, "messages": given["messages"], "mm_processor_kwargs": {"num_frames": 4}},
    ).json()
    assert counted["media"] == [told]
    assert counted["count"] == usage.prompt_tokens


def test_a_long_video_fits_a_short_context(running: Running) -> None:
    long = video(600, size=(320, 240), rate=10)
    text, tokens = streamed(running, ask(long))
    assert text
    assert tokens < 2048 * 7 // 8
    with pytest.raises(openai.BadRequestError) as refused:
        streamed(running, ask(long[: len(long) // 2]))
    assert refused.value.param == "messages[0].content[0].video_url"
