"""`qwen.tiktoken` read by us gives the ids of the tiktoken package, in the authors' use of it (qwen_golden.json)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import ConfigurationError
from sensorium.output.detokenizer import Detokenizer
from sensorium.prompt.guard import Guard
from sensorium.prompt.tiktoken_file import read_tiktoken
from sensorium.prompt.tokenizer import Tokenizer
from tests.qwen_checkpoints import NUM_RANKS, VOCABULARY

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "families" / "qwen_golden.json").read_text())
PLACES = ["<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"]
LITERALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_7|>", "<img>", "</img>", "<imgpad>", *PLACES]


@cache
def tokenizer(sees: bool = True) -> Tokenizer:
    return Tokenizer(read_tiktoken(VOCABULARY, sees=sees), {})


@pytest.mark.parametrize(("text", "ids"), GOLDEN["texts"])
def test_text_has_tiktokens_ids(text: str, ids: list[int]) -> None:
    assert tokenizer().encode_plain(text) == ids
    if "<" not in text:
        assert tokenizer().encode(text) == ids


@pytest.mark.parametrize(("text", "ids", "decoded"), GOLDEN["literals"])
def test_control_tokens_have_the_authors_ids(text: str, ids: list[int], decoded: str) -> None:
    assert Guard(tokenizer()).encode(text) == (ids, text)
    assert tokenizer().encode(text) == ids
    assert tokenizer().decode(ids, skip_special_tokens=False) == decoded


def test_ids_follow_the_ranks_as_in_the_published_models() -> None:
    # With 151643 ranks: 151643, 151644, 151645, 151646, 151851, 151857.
    wanted = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|extra_0|>": 3, "<ref>": 208, "<img>": 214}
    assert {text: tokenizer().added_tokens[text] - NUM_RANKS for text in wanted} == wanted
    assert tokenizer().vocab_size == NUM_RANKS + 217
    assert tokenizer(sees=False).vocab_size == NUM_RANKS + 208
    assert "<img>" not in tokenizer(sees=False).added_tokens


@given(st.lists(st.text(max_size=20) | st.sampled_from([*LITERALS, "  ", "\n\n", "好", "😀"]), max_size=6))
def test_clients_text_never_becomes_control_tokens(pieces: list[str]) -> None:
    text = "".join(pieces)
    guard, control = Guard(tokenizer()), frozenset(tokenizer().added_tokens.values())
    ids, shown = guard.encode(guard.text(text))
    assert control.isdisjoint(ids)
    assert shown == text.replace("\ufdd0", "\ufffd")
    by_model, _ = guard.encode(guard.text(text, by_model=True))
    assert control.intersection(by_model) <= {tokenizer().added_tokens[place] for place in PLACES}


def test_what_a_model_said_about_places_is_read_as_it_wrote_it() -> None:
    said = "<ref>the dog</ref><box>(1,2),(3,4)</box><|im_end|>"
    guard = Guard(tokenizer())
    ids, text = guard.encode(guard.text(said, by_model=True))
    literals = [i for i in ids if i >= NUM_RANKS]
    assert [tokenizer().token_string(i) for i in literals] == ["<ref>", "</ref>", "<box>", "</box>"]
    assert text == said


@pytest.mark.parametrize("skip", [True, False])
def test_places_stay_in_the_answer_whatever_is_skipped(skip: bool) -> None:
    text = "<ref>狗😀</ref><box>(1,2),(3,4)</box><quad>(5,6)</quad>"
    ids = tokenizer().encode("<img>" + text + "<|extra_0|><|im_end|>")
    detokenizer = Detokenizer(tokenizer(), skip_special_tokens=skip)
    shown = "".join(map(detokenizer.push, ids)) + detokenizer.flush()
    assert shown == (text if skip else f"<img>{text}<|extra_0|><|im_end|>")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_line_ends_do_not_matter(ending: bytes, tmp_path: Path) -> None:
    file = tmp_path / "qwen.tiktoken"
    file.write_bytes(VOCABULARY.read_bytes().replace(b"\n", ending))
    found = Tokenizer.load(tmp_path)
    assert found.vocab_size == NUM_RANKS + 208  # no config.json says that the model sees
    (tmp_path / "config.json").write_text('{"visual": {}}')
    assert Tokenizer.load(tmp_path).vocab_size == NUM_RANKS + 217
    assert found.encode("Hello, 世界") == tokenizer().encode("Hello, 世界")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "whole vocabulary|not a tiktoken vocabulary"),
        (lambda data: b"".join(data.splitlines(True)[1:]), "ranks or single bytes are missing"),
        (lambda data: b"<html>moved</html>\n", "is not a tiktoken vocabulary"),
        (lambda data: b"\xff\xfe !!\n" + data, "is not a tiktoken vocabulary"),
        (lambda data: b"", "ranks or single bytes are missing"),
    ],
)
def test_damaged_files_are_named(change: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "qwen.tiktoken"
    file.write_bytes(change(VOCABULARY.read_bytes()))
    with pytest.raises(ConfigurationError, match=message) as caught:
        Tokenizer.load(tmp_path)
    assert str(file) in str(caught.value)
