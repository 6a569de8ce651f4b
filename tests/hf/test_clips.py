"""Videos and sounds on the engine `transformers`: greedy tokens equal to calling that library directly.

Its video processors are made of torchvision. Where that is not installed, what is tested is that the error says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sensorium import LLM
from sensorium.errors import ConfigurationError, InvalidRequest, MediaError
from tests.checkpoints import make_checkpoint
from tests.hf.checkpoints import glm_asr, llava_onevision
from tests.hf.reference import answer, ask, generated_with, picture

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
RATE = 16_000


def noise(seconds: float, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def tone(like: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.sin(np.arange(len(like), dtype=np.float32) / 3)


def frames(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 40, 60, 3), dtype=np.uint8)


def turn(text: str, *parts: tuple[str, Any]) -> list[dict[str, Any]]:
    shown = [{"type": kind, kind: value} for kind, value in parts]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def qwen2_audio(path: Path) -> Path:
    make_checkpoint("qwen2_audio", path)
    return path


@pytest.mark.parametrize(
    ("make", "clips"),
    [(glm_asr, [noise(1.3)]), (qwen2_audio, [noise(1.3)]), (qwen2_audio, [noise(0.7, 1), noise(2.9, 2)])],
)
def test_sounds(make: Callable[[Path], Path], clips: list[npt.NDArray[np.float32]], tmp_path: Path) -> None:
    path = make(tmp_path)
    with LLM(str(path), dtype="float32", engine="transformers") as llm:
        assert llm.info.modalities == ("text", "audio")
        ours = answer(llm, turn("What is heard? <|AUDIO|", *(("audio", (clip, RATE)) for clip in clips)))
        other = answer(llm, turn("What is heard? <|AUDIO|", *(("audio", (tone(clip), RATE)) for clip in clips)))
        text = answer(llm, ask("No sound at all."))
    assert [use.seconds for use in ours.media] == [len(clip) / RATE for clip in clips]
    prompt, tokens = generated_with(
        path, turn("What is heard? <|AUDIO|", *(("audio", "x") for _ in clips)), audio=clips, sampling_rate=RATE
    )
    assert ours.prompt_token_ids == prompt
    assert ours.outputs[0].token_ids == tokens
    assert other.prompt_token_ids == prompt
    assert other.outputs[0].token_ids != tokens, "the answer does not depend on the sound"
    assert len(text.outputs[0].token_ids) == 16


def test_sounds_that_would_be_cut_are_refused(tmp_path: Path) -> None:
    with LLM(str(qwen2_audio(tmp_path)), dtype="float32", engine="transformers") as llm:
        assert llm.info.media_bounds == {"audio": {"max_seconds": 3.0}}
        with pytest.raises(MediaError, match=r"content\[0\].* is 3\.10 s long; this model hears at most 3 s"):
            answer(llm, turn("?", ("audio", (noise(3.1), RATE))))
        with pytest.raises(InvalidRequest, match="takes text, audio"):
            answer(llm, turn("?", ("image", picture())))


@pytest.mark.skipif(not HAS_TORCHVISION, reason="transformers' video processors need torchvision")
def test_videos(tmp_path: Path) -> None:
    path = llava_onevision(tmp_path)
    clips = [frames(5), frames(5, 1)]
    with LLM(str(path), dtype="float32") as llm:
        assert llm.info.modalities == ("text", "image", "video")
        one = answer(llm, turn("What happens?", ("video", clips[0])))
        two = answer(llm, turn("What differs?", ("video", clips[0]), ("image", picture()), ("video", clips[1])))
        prompt = {"prompt": one.prompt, "multi_modal_data": {"video": clips[0]}}
        (few,) = llm.generate({**prompt, "mm_processor_kwargs": {"num_frames": 2}}, use_tqdm=False)  # type: ignore[typeddict-item]
        with pytest.raises(MediaError, match="processor does not take this prompt with 2 media items"):
            answer(
                llm, turn("Of unequal length?", ("video", clips[0]), ("video", frames(3)))
            )  # the library stacks them
        with pytest.raises(InvalidRequest, match=r"mm_processor_kwargs\.max_pixels cannot be set"):
            llm.generate({**prompt, "mm_processor_kwargs": {"max_pixels": 2}}, use_tqdm=False)  # type: ignore[typeddict-item]
    assert one.media[0].timestamps == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert few.media[0].timestamps == (0.0, 4.0)
    assert len(one.prompt_token_ids) - len(few.prompt_token_ids) == 3 * 4 - 1  # and the tokenizer's own first token
    for output, media, shown in (
        (one, {"videos": clips[:1]}, [("video", "x")]),
        (two, {"videos": clips, "images": [[picture()]]}, [("video", "x"), ("image", "x"), ("video", "x")]),
    ):
        question = "What happens?" if output is one else "What differs?"
        ids, tokens = generated_with(path, turn(question, *shown), **media)
        assert output.prompt_token_ids == ids
        assert output.outputs[0].token_ids == tokens


@pytest.mark.skipif(HAS_TORCHVISION, reason="torchvision is installed: test_videos runs")
def test_without_torchvision_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="pip install torchvision"):
        LLM(str(llava_onevision(tmp_path)), dtype="float32")
