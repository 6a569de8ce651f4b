"""Streamed text is final at once, and all of it together is what `decode` gives."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from sensorium.output.detokenizer import Detokenizer
from sensorium.prompt.tokenizer import Tokenizer
from tests.prompt import tiny

TEXTS = [
    " leading",
    "  two leading",
    "图里有什么？👩‍👩‍👧🚀 e\u0301 न\u093f",
    "a<|im_end|>b</s>c <think>\n",
    "\n\n\ttabs\r\n",
]


def stream(kind: str, ids: list[int], skip: bool, prompt: list[int] | None = None) -> list[str]:
    detokenizer = Detokenizer(tiny.ours(kind), skip_special_tokens=skip, prompt_ids=prompt or ())
    return [*map(detokenizer.push, ids), detokenizer.flush()]


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(data=st.data(), skip=st.booleans())
@settings(max_examples=150)
def test_random_ids_equal_decode(kind: str, data: st.DataObject, skip: bool) -> None:
    # 30 ids beyond the vocabulary: models pad their embedding, and may sample what has no token.
    ids = data.draw(st.lists(st.integers(0, tiny.ours(kind).vocab_size + 30), max_size=40))
    assert "".join(stream(kind, ids, skip)) == tiny.reference(kind).decode(
        [i for i in ids if i < tiny.ours(kind).vocab_size], skip_special_tokens=skip
    )


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(text=st.text(max_size=40) | st.lists(st.sampled_from(TEXTS), max_size=3).map("".join))
@settings(max_examples=80)
def test_text_is_never_cut_inside_a_character(kind: str, text: str) -> None:
    ids = tiny.ours(kind).encode(text)
    pieces = stream(kind, ids, skip=False)
    assert "".join(pieces) == tiny.ours(kind).decode(ids, skip_special_tokens=False)
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)


def test_text_comes_out_as_soon_as_it_is_final() -> None:
    ids = tiny.ours("qwen").encode("a图b")
    pieces = stream("qwen", ids, skip=False)
    assert pieces[0] == "a"
    assert pieces[-2:] == ["b", ""]
    cut = ids[: len(ids) - 2]
    assert "".join(stream("qwen", cut, skip=False)) == tiny.ours("qwen").decode(cut)


@pytest.mark.parametrize("kind", ["llama2_legacy", "llama2_metaspace"])
def test_a_word_that_continues_the_prompt_keeps_its_blank(kind: str) -> None:
    tokenizer = tiny.ours(kind)
    ids = tokenizer.encode("fox jumps")
    assert "".join(stream(kind, ids, skip=True)) == "fox jumps"
    prompt = tokenizer.encode("brown")
    assert "".join(stream(kind, ids, skip=True, prompt=prompt)) == " fox jumps"


def test_a_character_begun_by_the_prompt_is_finished() -> None:
    ids = tiny.ours("qwen").encode("🙂")
    assert "".join(stream("qwen", ids[1:], skip=True, prompt=[*tiny.ours("qwen").encode("a"), ids[0]])) == "🙂"


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), decoders.Metaspace(), decoders.BPEDecoder(), None])
def test_other_decoders(decoder: decoders.Decoder | None) -> None:
    words = {"▁the": 0, "fox</w>": 1, "##es": 2, "▁jump": 3, "s</w>": 4, ".": 5}
    backend = Backend(models.WordLevel(words, unk_token="."))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if decoder is not None:
        backend.decoder = decoder
    tokenizer = Tokenizer(backend, {})
    ids = [0, 1, 2, 3, 4, 0, 3, 3, 4, 5] * 5
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=True)
    assert len("".join([*map(detokenizer.push, ids), detokenizer.flush()])) >= len(tokenizer.decode(ids)) - 5
    short = Detokenizer(tokenizer, skip_special_tokens=True)
    assert "".join([*map(short.push, ids[:10]), short.flush()]) == tokenizer.decode(ids[:10])


def test_the_cost_of_a_token_does_not_grow() -> None:
    ids = tiny.ours("qwen").encode("The quick brown fox 图里有什么 🙂 ") * 2000
    detokenizer = Detokenizer(tiny.ours("qwen"), skip_special_tokens=True)
    start = time.thread_time()
    for token_id in ids:
        detokenizer.push(token_id)
    # Under 1 us on an idle core; the bound only catches work that grows with the length.
    assert (time.thread_time() - start) / len(ids) < 20e-6
