"""Sounds as a user sends them: a real server, the real openai client, and WAV bytes in both of the wire's forms."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile

from tests.checkpoints import make_checkpoint
from tests.e2e.running import Running, serve

MODEL = "tiny-sound"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    make_checkpoint("qwen2_audio", folder / "checkpoint")
    arguments = [str(folder / "checkpoint"), "--served-model-name", MODEL, "--dtype", "float32"]
    with serve([*arguments, "--max-model-len", "1024"], folder / "home") as started:
        yield started


def tone(hertz: float, seconds: float, rate: int = 22_050) -> str:
    """A WAV file, base64."""
    times = np.arange(round(seconds * rate)) / rate
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * hertz * times), rate, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def ask(running: Running, *parts: dict[str, Any]) -> Any:
    return running.client().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": [*parts, {"type": "text", "text": "What is heard?"}]}],  # type: ignore[list-item]
        max_tokens=8,
        temperature=0,
        logprobs=True,
        extra_body={"ignore_eos": True},
    )


def as_input(data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def as_url(data: str) -> dict[str, Any]:
    return {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64," + data}}


def probabilities(answer: Any) -> list[float]:
    return [token.logprob for token in answer.choices[0].logprobs.content]


def test_both_forms_are_the_same_sound_and_another_sound_is_another_answer(running: Running) -> None:
    low, high = tone(200, 1.0), tone(3000, 1.0)
    first = ask(running, as_input(low))
    # The second finds its prompt computed: other shapes, other rounding.
    assert probabilities(ask(running, as_url(low))) == pytest.approx(probabilities(first), abs=1e-4)
    assert probabilities(ask(running, as_url(high))) != pytest.approx(probabilities(first), abs=1e-4)
    longer = ask(running, as_input(tone(200, 2.0)))
    assert longer.usage.prompt_tokens - first.usage.prompt_tokens == 25  # one token is 40 ms


def test_what_was_heard_is_told(running: Running) -> None:
    usage = ask(running, as_input(tone(200, 1.0)), as_url(tone(500, 2.0))).usage
    details = usage.prompt_tokens_details
    assert details.audio_tokens == 75
    assert details.model_extra["multimodal_tokens"] == {"audio": 75}
    assert details.model_extra["media"] == [
        {"type": "audio", "where": "messages[0].content[0].input_audio", "tokens": 25, "seconds": 1.0},
        {"type": "audio", "where": "messages[0].content[1].audio_url", "tokens": 50, "seconds": 2.0},
    ]


def test_the_card_tells_before_and_after_loading(running: Running, tmp_path: Path) -> None:
    """Before: with what config.json says, and no worker started for it. After: with the model's own window of 3 s."""
    loaded = running.client().models.retrieve(MODEL).to_dict()
    with serve([loaded["root"], "--served-model-name", MODEL, "--no-preload"], tmp_path) as asleep:  # type: ignore[list-item]
        known = asleep.client().models.retrieve(MODEL).to_dict()
    for card in (known, loaded):
        assert card["input_modalities"] == ["text", "audio"]
        assert card["is_multimodal"] is True
    assert (known["loaded"], loaded["loaded"]) == (False, True)
    assert (known["max_model_len"], loaded["max_model_len"]) == (4096, 1024)
    before, after = (card["media"]["audio"]["refused_above"] for card in (known, loaded))  # type: ignore[index]
    assert (before["seconds"], after["seconds"]) == (600.0, 3.0)


def test_two_clips_in_one_turn(running: Running) -> None:
    one = ask(running, as_input(tone(200, 1.0))).usage.prompt_tokens
    two = ask(running, as_input(tone(200, 1.0)), as_url(tone(500, 1.0))).usage.prompt_tokens
    assert two > one + 25


def test_a_clip_longer_than_the_window_is_refused_with_both_numbers(running: Running) -> None:
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\].content\[0\].*5.*3") as refused:
        ask(running, as_input(tone(200, 5.0)))
    assert refused.value.param == "messages[0].content[0].input_audio"


def test_what_is_no_sound_is_refused_by_place(running: Running) -> None:
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\].content\[1\]"):
        ask(running, as_input(tone(200, 1.0)), as_url(base64.b64encode(b"not a sound at all").decode()))
