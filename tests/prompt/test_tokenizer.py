"""Ids and texts equal transformers' for every tokenizer kind we serve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import ConfigurationError
from sensorium.prompt.tokenizer import Tokenizer
from tests.prompt import tiny

TEXTS = [
    "",
    " ",
    "Hello world",
    " leading and trailing ",
    "How many red circles? 图里有几个红色的圆形？",
    "line\n\n\nbreaks\r\n\ttabs   blanks",
    "🙂🚀👩‍👩‍👧 e\u0301 Ω \u212a café",
    "a<|im_start|>b<|im_end|>\n<think>c</think></s><s>[INST]",
    "<|begin_of_text|><|eot_id|>x<0x0A>▁y",
    "it's I'M we'll 12345 x=1;",
]
any_text = st.text(max_size=60) | st.lists(st.sampled_from(TEXTS), max_size=4).map("".join)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_encode_equals_transformers(kind: str, text: str) -> None:
    ids = tiny.ours(kind).encode(text)
    assert ids == tiny.reference(kind).encode(text, add_special_tokens=False)
    for skip in (True, False):
        assert tiny.ours(kind).decode(ids, skip) == tiny.reference(kind).decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_encode_prompt_adds_what_transformers_adds(kind: str) -> None:
    for text in TEXTS:
        for special in (True, False):
            expected = tiny.reference(kind).encode(text, add_special_tokens=special)
            assert tiny.ours(kind).encode_prompt(text, special) == expected
    assert len(tiny.ours("llama3").encode_prompt("x")) == 1 + len(tiny.ours("llama3").encode("x"))


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(text=any_text)
@settings(max_examples=60)
def test_plain_text_never_holds_an_added_token(kind: str, text: str) -> None:
    tokenizer = tiny.ours(kind)
    ids = tokenizer.encode_plain(text)
    # <unk> and friends cannot be written either; unknown characters become bytes.
    assert not set(ids) & set(tokenizer.added_tokens.values())
    if not any(literal in text for literal in tokenizer.added_tokens):
        assert ids == tokenizer.encode(text)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_special_and_added_tokens(kind: str) -> None:
    tokenizer, reference = tiny.ours(kind), tiny.reference(kind)
    assert tokenizer.added_tokens == reference.get_added_vocab()
    hidden = {i for i in tokenizer.added_tokens.values() if reference.decode([i], skip_special_tokens=True) == ""}
    assert tokenizer.special_ids == hidden
    # transformers' Qwen2Tokenizer has a default for unk_token, which no template reads.
    assert tokenizer.special_tokens.items() <= reference.special_tokens_map.items()
    assert tokenizer.eos_token_id == reference.eos_token_id
    assert tokenizer.bos_token == reference.bos_token
    assert tokenizer.vocab_size == len(reference)
    assert tokenizer.token_string(5) == reference.convert_ids_to_tokens(5)


def test_token_bytes() -> None:
    qwen, llama = tiny.ours("qwen"), tiny.ours("llama2_legacy")
    for text in ("图 café 🙂\n", " x"):
        assert b"".join(map(qwen.token_bytes, qwen.encode(text))) == text.encode()
        assert b"".join(map(llama.token_bytes, llama.encode(text))) == b" " + text.encode()
    newline = llama.id_of("<0x0A>")
    assert newline is not None
    assert llama.token_bytes(newline) == b"\n"
    assert qwen.token_bytes(qwen.added_tokens["<|im_end|>"]) == b"<|im_end|>"
    assert qwen.token_bytes(10**6) == b""
    assert qwen.id_of("nowhere") is None


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert tiny.ours("qwen").encode("a\ud800b") == tiny.ours("qwen").encode("a\ufffdb")


def test_vocab_and_merges_are_enough(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(tiny.qwen() / name, tmp_path / name)
    rebuilt = Tokenizer.load(tmp_path)
    assert [rebuilt.encode(text) for text in TEXTS] == [tiny.ours("qwen").encode(text) for text in TEXTS]
    assert rebuilt.special_ids == tiny.ours("qwen").special_ids


def test_named_special_tokens_missing_from_the_vocabulary_are_added(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for file in tiny.llama3().iterdir():
        shutil.copy(file, tmp_path / file.name)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"pad_token": "<|pad|>", "extra_special_tokens": ["<|extra|>"], "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer, reference = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path))
    assert tokenizer.added_tokens == reference.get_added_vocab()
    assert tokenizer.encode_prompt("a<|pad|>b<|extra|>") == reference.encode("a<|pad|>b<|extra|>")


def test_errors_name_the_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no tokenizer\.json, no tokenizer\.model, and no vocab\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "cl100k_base.tiktoken").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=r"save it as tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    shutil.copy(tiny.qwen() / "tokenizer.json", tmp_path)
    listed = {"7": {"content": "<|im_end|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    with pytest.raises(ConfigurationError, match="do not belong together"):
        Tokenizer.load(tmp_path)
