"""Long texts: refused early, and tokenized while other threads run."""

from __future__ import annotations

import threading
import time

import pytest

from sensorium.errors import ContextLengthExceeded
from sensorium.prompt.room import Room
from sensorium.prompt.tokenizer import Tokenizer
from tests.prompt import tiny


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.seen = 0

    def encode(self, text: str) -> list[int]:
        self.seen += len(text)
        return self._tokenizer.encode(text)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("text", ["What is in this picture? ", " ", "图里有什么？", "<|im_end|>"])
def test_what_cannot_fit_is_not_tokenized_whole(kind: str, text: str) -> None:
    counting = Counting(tiny.ours(kind))
    room = Room(counting, 1000)  # type: ignore[arg-type]
    text *= 3_000_000 // len(text)
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 1000 tokens; the prompt has more than "):
        room.check(text, "prompt")
    assert counting.seen < len(text) / 4


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("text", ["What is in this picture? ", "a", " ", "🙂e\u0301", "<|im_end|>", "</s>", "\n\n \t"])
def test_never_more_are_counted_than_there_are(kind: str, text: str) -> None:
    text *= 200_000 // len(text)
    tokenizer = tiny.ours(kind)
    exactly = len(tokenizer.encode(text))
    assert Room(tokenizer, 1)._least(text, exactly) <= exactly
    Room(tokenizer, exactly).check(text, "prompt")


def test_a_count_has_a_bound_of_its_own() -> None:
    room = Room(tiny.ours("qwen"), 1000)
    room.check("What is in this picture? " * 10_000, "prompt", bounded=False)
    with pytest.raises(ContextLengthExceeded, match="Texts of at most 524288 tokens are tokenized"):
        room.check("<|im_end|>" * 1_000_000, "prompt", bounded=False)
    with pytest.raises(ContextLengthExceeded, match="Texts of at most 524288 tokens are tokenized"):
        room.check("? " * 600_000, "prompt", bounded=False)  # not many characters, and still too many tokens


def test_other_threads_run_while_a_long_text_is_tokenized() -> None:
    text = "What is in this picture? " * 60_000
    ticks, over = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not over.is_set():
            ticks += 1
            time.sleep(0.001)

    tokenizer = tiny.ours(next(iter(tiny.KINDS)))
    beside = threading.Thread(target=tick)
    beside.start()
    try:
        before = ticks
        tokenizer.encode(text)
        during = ticks - before
    finally:
        over.set()
        beside.join()
    assert during > 10  # one, if it had to wait
