"""AutoTokenizer against transformers' own, on checkpoints that both read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from sensorium import AutoTokenizer
from sensorium.errors import ConfigurationError, InvalidRequest
from tests.checkpoints import make_checkpoint

FAMILIES = ("qwen2_5_vl", "llama", "llava", "internvl")
TEXTS = ("", "hello there", "图中有 3 个圆形。\n\n<|im_end|> x", "  two  spaces ", "<image>\n<|eot_id|>")
MESSAGES = [
    [{"role": "user", "content": "(<image>./</image>)\n请描述这张图片"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>\nHow many?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Sure?"},
    ],
]
Pair = tuple[AutoTokenizer, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    make_checkpoint(request.param, folder)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=True), transformers.AutoTokenizer.from_pretrained(
        folder
    )


def test_ids_and_texts_are_equal(pair: Pair) -> None:
    ours, theirs = pair
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert ours(list(TEXTS))["input_ids"] == theirs(list(TEXTS))["input_ids"]
    assert ours(TEXTS[1])["attention_mask"] == theirs(TEXTS[1])["attention_mask"]
    assert ours.batch_decode([[70, 71], [72]]) == theirs.batch_decode([[70, 71], [72]])


def test_prompts_are_equal(pair: Pair) -> None:
    ours, theirs = pair
    for messages in MESSAGES:
        for more in ({}, {"add_generation_prompt": True}):
            assert ours.apply_chat_template(messages, tokenize=False, **more) == theirs.apply_chat_template(
                messages, tokenize=False, **more
            )
        options = {"add_generation_prompt": True, "tokenize": True}
        assert (
            ours.apply_chat_template(messages, **options, return_dict=True)["input_ids"]
            == (theirs.apply_chat_template(messages, **options, return_dict=True)["input_ids"])
        )
        assert ours.apply_chat_template(messages) == theirs.apply_chat_template(messages, return_dict=False)
    assert ours.apply_chat_template(MESSAGES, tokenize=False) == theirs.apply_chat_template(MESSAGES, tokenize=False)
    template = "{% for m in messages %}{{ m.role }}|{% endfor %}"
    assert (
        ours.apply_chat_template(MESSAGES[1], chat_template=template, tokenize=False) == "system|user|assistant|user|"
    )


def test_named_tokens_are_equal(pair: Pair) -> None:
    ours, theirs = pair
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        assert getattr(ours, name) == getattr(theirs, name)
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_id")
    tokens = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "no such token", "Ġthe"]
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    assert [ours.convert_tokens_to_ids(token) for token in tokens] == ours.convert_tokens_to_ids(tokens)
    assert ours.get_vocab() == theirs.get_vocab()
    assert (len(ours), ours.vocab_size) == (len(theirs), theirs.vocab_size)


def test_what_is_not_there_is_said(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="encode_fast"):
        pair[0].encode_fast  # noqa: B018
    with pytest.raises(InvalidRequest, match="not valid jinja"):
        pair[0].apply_chat_template(MESSAGES[0], chat_template="{% for %}")
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        AutoTokenizer.from_pretrained(tmp_path)
