"""The tiny checkpoints are what they claim: transformers loads them whole, in both layouts."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests.checkpoint_text import build_tokenizer
from tests.checkpoints import FAMILIES, Layout, make_checkpoint, tokenizer_kind
from tests.families.reference import loader


@pytest.mark.parametrize("layout", ["hub", "saved"])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_finds_every_tensor_it_wants(family: str, layout: Layout, tmp_path: Path) -> None:
    make_checkpoint(family, tmp_path, shards=2 if layout == "hub" else 1, layout=layout)
    model, report = loader(family).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7, 300]])).logits
    assert logits.std() > 0.5


def test_equal_arguments_write_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_checkpoint("qwen3_vl", tmp_path / name)
    files = [file.name for file in (tmp_path / "a").iterdir()]
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False) == (files, [], [])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_is_the_same_in_transformers(family: str, tmp_path: Path) -> None:
    make_checkpoint(family, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "The red square is 42 px.\n  图中有什么？"
    assert theirs.decode(theirs.encode(text, add_special_tokens=False)) == text
    prompt = theirs.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
    ends = {"llama": "assistant<|end_header_id|>\n\n", "llava": "ASSISTANT:"}
    assert prompt.endswith(ends.get(family, "assistant\n"))
    ids = theirs.encode(prompt, add_special_tokens=False)
    assert ids == build_tokenizer(tokenizer_kind(family)).encode(prompt, add_special_tokens=False).ids
