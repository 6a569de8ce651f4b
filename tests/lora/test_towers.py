"""Merging where the vision tower is a folder of its own: the merged model needs it wherever it is put."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sensorium import LLM, LoRARequest, SamplingParams
from sensorium.lora.merge import merge
from tests.checkpoint_llava import write_llava_llama
from tests.lora.writing import decoder_layers, write_adapter

GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
PICTURE = {"type": "image", "image": Image.new("RGB", (40, 30), "red")}
QUESTION = [{"role": "user", "content": [PICTURE, {"type": "text", "text": "What is it?"}]}]


@pytest.mark.parametrize("place", ["within", "beside"])
def test_the_tower_goes_with_the_merged_model(place: str, tmp_path: Path) -> None:
    base = write_llava_llama(tmp_path / "hf", tmp_path / "there", "yi_vl")
    (tower,) = (base / "vit").iterdir()
    if place == "beside":
        tower.rename(base.parent / tower.name)
    (base / "checkpoint-5").mkdir()  # what training left in the same folder stays there
    (base / "checkpoint-5" / "config.json").write_text("{}")
    adapter = write_adapter(tmp_path / "adapter", base, decoder_layers(base, "q_proj", "up_proj"), strength=1.0)
    with LLM(str(base), dtype="float32", enable_lora=True) as llm:
        plain = llm.chat(QUESTION, GREEDY)[0].outputs[0].text
        wanted = llm.chat(QUESTION, GREEDY, lora_request=LoRARequest("a", 1, str(adapter)))[0].outputs[0].text
    assert wanted != plain
    merged = merge(str(adapter), None, tmp_path / "elsewhere" / "merged")
    with LLM(str(merged), dtype="float32") as llm:
        assert llm.chat(QUESTION, GREEDY)[0].outputs[0].text == wanted
    kept = [entry.name for entry in merged.iterdir() if entry.is_dir()]
    assert kept == ["vit" if place == "within" else tower.name]
