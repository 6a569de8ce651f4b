"""Every family through the whole way of a request: the streamed pieces are the answer in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium import LLM, SamplingParams
from tests.checkpoint_chat import write_internvl_chat
from tests.checkpoint_llava import write_llava_llama
from tests.checkpoints import make_checkpoint
from tests.families.parity import Parity
from tests.families.table import ROWS
from tests.hf.checkpoints import smolvlm
from tests.minicpm_checkpoints import FAMILIES as MINICPM
from tests.minicpm_checkpoints import make_minicpm
from tests.qwen_checkpoints import make_qwen

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


def make(family: str, path: Path) -> Path:
    """Write a tiny checkpoint of the family in its publishers' layout."""
    versions = {name: version for version, name in MINICPM.items()}
    if family in versions:
        make_minicpm(versions[family], path)
    elif family == "internvl_chat":
        write_internvl_chat(path / "hf", path / "chat", "qwen2")
        return path / "chat"
    elif family in ("qwen", "qwen_vl"):
        make_qwen(family, path)
    elif family in ("llava_llama", "yi_vl"):
        return write_llava_llama(path / "hf", path, "yi_vl" if family == "yi_vl" else "llava")
    elif family == "smolvlm":
        smolvlm(path)
    else:
        make_checkpoint(family, path)
    return path


def question(takes: tuple[str, ...]) -> list[dict[str, Any]]:
    source = np.random.default_rng(0)
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What is this?"}]
    if "image" in takes:
        parts.insert(0, {"type": "image", "image": source.integers(0, 256, (60, 90, 3), dtype=np.uint8)})
    if "audio" in takes:
        sound = source.normal(0, 0.1, 9000).astype(np.float32)
        parts.insert(0, {"type": "audio", "audio": (sound, 16_000)})
    return [{"role": "user", "content": parts}]


@pytest.mark.parametrize("family", ROWS)
def test_the_pieces_are_the_answer(family: str, tmp_path: Path, parity: Parity) -> None:
    with torch.inference_mode(False), LLM(str(make(family, tmp_path)), dtype="float32", num_threads=1) as llm:
        assert (llm.info.family, llm.info.engine) == (family, "native")
        messages = question(llm.info.modalities)
        pieces = list(llm.stream(messages, GREEDY))
        (whole,) = llm.chat(messages, GREEDY, use_tqdm=False)
    assert len(whole.outputs[0].token_ids) == 8
    assert len(whole.media) == len(messages[0]["content"]) - 1
    assert "".join(pieces) == whole.outputs[0].text
    parity.holds(family, "stream")
