"""The offline API with adapters: what is cached for whom, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sensorium import LLM, LoRARequest, SamplingParams
from sensorium.errors import InvalidRequest, ModelUnavailable
from tests.checkpoints import make_checkpoint
from tests.lora.writing import decoder_layers, write_adapter

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
PROMPT = {
    "prompt": "<|vision_start|><|image_pad|><|vision_end|>What is red, and what is green?",
    "multi_modal_data": {"image": np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("offline")
    make_checkpoint("qwen2_vl", path / "base")
    write_adapter(path / "text", path / "base", decoder_layers(path / "base", "q_proj", "up_proj"))
    write_adapter(path / "sight", path / "base", ["visual.merger.mlp.0", "visual.blocks.0.mlp.fc1"], strength=2.0)
    return path


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder / "base"), dtype="float32", enable_lora=True, max_loras=2) as made:
        yield made


def ask(llm: LLM, adapter: Path | None = None) -> tuple[str, int, int]:
    """The answer, how many pictures it took decoding, and how many prompt tokens were in the cache."""

    def decoded() -> int:
        return int(llm._handle.model.beat()[1]["media_decoded"])

    before = decoded()
    request = LoRARequest(adapter.name, 1, str(adapter)) if adapter else None
    (output,) = llm.generate(PROMPT, GREEDY, use_tqdm=False, lora_request=request)  # type: ignore[arg-type]
    return output.outputs[0].text, decoded() - before, output.num_cached_tokens or 0


def test_pictures_are_encoded_again_only_for_adapters_that_change_how(llm: LLM, folder: Path) -> None:
    plain = ask(llm)
    assert plain[1:] == (1, 0)
    again = ask(llm)
    assert again[:2] == (plain[0], 0)
    assert again[2] > 0
    text = ask(llm, folder / "text")
    assert text[0] != plain[0]
    assert text[1:] == (0, 0)  # the same features; keys and values of its own
    sight = ask(llm, folder / "sight")
    assert sight[0] != plain[0]
    assert sight[1:] == (1, 0)
    for adapter, first in ((None, plain), (folder / "text", text), (folder / "sight", sight)):
        answer, decoded, cached = ask(llm, adapter)
        assert (answer, decoded) == (first[0], 0)
        assert cached > 0


def test_an_adapter_that_is_not_there_fails_its_request_only(llm: LLM, folder: Path) -> None:
    with pytest.raises(
        ModelUnavailable, match=r"The adapter 'gone' cannot be loaded: .*adapter_config.json cannot be read"
    ):
        ask(llm, folder / "gone")
    assert ask(llm)[0]
    with pytest.raises(InvalidRequest, match="needs lora_name and lora_path"):
        LoRARequest("x", 1)
