"""Ids from tokenizer.model equal those of the SentencePiece library and of transformers' tokenizers in Python."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import ConfigurationError
from sensorium.prompt.guard import Guard
from sensorium.prompt.sentencepiece_backend import read_sentencepiece_backend
from sensorium.prompt.sentencepiece_file import read_sentencepiece
from sensorium.prompt.tokenizer import Tokenizer

FOLDER = Path(__file__).with_name("sentencepiece_golden")
GOLDEN: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text())
NAMES = tuple(GOLDEN["slow"])


@cache
def library_like(model: str) -> Any:
    return read_sentencepiece_backend(FOLDER / f"{model}.model", {}, legacy=True, prefix=True, strip=False)[0]


@pytest.mark.parametrize("model", GOLDEN["library"])
def test_ids_equal_the_librarys(model: str) -> None:
    backend = library_like(model)
    literals = [token.content for token in backend.get_added_tokens_decoder().values()]
    rows = [(text, ids) for text, ids in GOLDEN["library"][model] if not any(word in text for word in literals)]
    assert len(rows) > 150
    found = [(text, ids, backend.encode(text).ids) for text, ids in rows]
    wrong = [row for row in found if row[1] != row[2]]
    if model == "unigram":  # "###" is "##" and "#", or "#" and "##", whose scores sum to the same
        assert all("###" in text and sorted(theirs) == sorted(ours) for text, theirs, ours in wrong)
        assert len(wrong) < 4
    else:
        assert not wrong, (len(wrong), wrong[:5])


def write(name: str, path: Path) -> Path:
    """Write the tokenizer `name` of the golden file as a checkpoint has it."""
    path.mkdir(parents=True, exist_ok=True)
    found = GOLDEN["slow"][name]
    shutil.copy(FOLDER / f"{found['model']}.model", path / "tokenizer.model")
    (path / "tokenizer_config.json").write_text(json.dumps(found["config"]))
    return path


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return {name: Tokenizer.load(write(name, tmp_path_factory.mktemp(name))) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_transformers(name: str, tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer, wrong = tokenizers[name], []
    for text, ids, adds_bos in GOLDEN["slow"][name]["rows"]:
        if tokenizer.encode(text) != ids and "[UNUSED_TOKEN_14" not in text:
            wrong.append((text, ids, tokenizer.encode(text)))
        bos = [tokenizer.id_of(tokenizer.special_tokens["bos_token"])] if adds_bos else []
        assert tokenizer.encode_prompt(text) == bos + tokenizer.encode(text)
    assert not wrong, (len(wrong), wrong[:5])
    assert tokenizer.vocab_size == GOLDEN["slow"][name]["size"]


def test_a_piece_renamed_to_a_control_token_answers_to_its_new_name_only(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["internlm2"]
    start = tokenizer.id_of("<|im_start|>")
    assert start is not None
    assert tokenizer.encode("<|im_start|>user") == [start, *tokenizer.encode("user")]
    assert start not in tokenizer.encode("[UNUSED_TOKEN_146]")  # with transformers 4 this is <|im_start|>
    assert tokenizer.decode([start, *tokenizer.encode("hi there")]) == "hi there"
    (row,) = (ids for text, ids, _ in GOLDEN["slow"]["internlm2"]["rows"] if "[UNUSED_TOKEN_14" in text)
    assert start in row


@pytest.mark.parametrize("name", NAMES)
def test_text_comes_back(name: str, tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers[name]
    for text in ("Two red circles. 两个红色的圆形🙂", "a  b\n\n c", "x"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)).decode().removeprefix(" ") == text
    # Where the blank is not put in front by the tokenizer, Llama's class drops one of the text's own.
    assert tokenizer.decode(tokenizer.encode(" x")) == ("x" if name in ("yi_vl", "llava") else " x")
    assert tokenizer.decoder_kind.name == "sentencepiece"


@pytest.mark.parametrize("name", NAMES)
@given(
    text=st.text(max_size=40) | st.lists(st.sampled_from([r[0] for r in GOLDEN["slow"]["llava"]["rows"]])).map("".join)
)
@settings(max_examples=40)
def test_client_text_is_never_a_control_token(name: str, tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers[name]
    control = {i for literal, i in tokenizer.added_tokens.items() if not literal.isspace()}
    guard = Guard(tokenizer)
    assert control.isdisjoint(guard.encode(guard.text(text))[0])
    assert control.isdisjoint(tokenizer.encode_plain(text))
    assert control.isdisjoint(guard.encode(guard.text("</s><s>" + text + "<|im_end|><image>"))[0])


def test_files_that_are_no_model_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    whole = (FOLDER / "llama.model").read_bytes()
    for broken in (b"", b"version https://git-lfs", whole[:1000], b"\xff" * 40, b"\x0a\x02\x15\x00"):
        path.write_bytes(broken)
        with pytest.raises(ConfigurationError, match=r"tokenizer\.model is not a SentencePiece model, or is cut short"):
            Tokenizer.load(tmp_path)
    path.write_bytes(whole + b"\x12\x02\x18\x03")  # the trainer's settings once more: it is a word model
    with pytest.raises(ConfigurationError, match="of the kind 'word'; supported: bpe and unigram"):
        Tokenizer.load(tmp_path)
    path.write_bytes(whole)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<image>": 9}))
    assert Tokenizer.load(tmp_path).added_tokens["<image>"] == 9
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<image>": 9999}))
    with pytest.raises(ConfigurationError, match="the id 9999, but the vocabulary gives it 640"):
        Tokenizer.load(tmp_path)


def test_the_files_own_names_count_where_the_others_are_silent(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "yi.model", tmp_path / "tokenizer.model")
    tokenizer = Tokenizer.load(tmp_path)
    wanted = {"unk_token": "<unk>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    assert tokenizer.special_tokens == wanted
    assert tokenizer.encode_prompt("x")[0] == tokenizer.id_of("<|startoftext|>")
    assert read_sentencepiece(FOLDER / "yi.model").add_dummy_prefix is False
