"""What every arm measures, in the same order, with the same prompts, and how it tells the runner: JSON lines on stdout.

Only the standard library, because each arm runs in a virtual environment of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable

Generate = Callable[[list[list[int]], int], None]  # (prompts as token ids, new tokens for each) -> when all are done

PROMPT_TOKENS = 32  # of a decode measurement
PREFILL_TOKENS = (512, 2048)
BATCHES = (1, 8, 32)
CONTEXT = 4096  # what every engine is told to be ready for


def arguments() -> argparse.Namespace:
    """The command line of an arm: MODEL, --rounds, --new-tokens."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=2, help="timed repetitions of each shape, after one untimed")
    parser.add_argument("--new-tokens", type=int, default=64, help="decode steps that are timed")
    return parser.parse_args()


def tell(what: str, **values: object) -> None:
    """Print one line for the runner; `at` is the time of day, by which it knows how long the start took."""
    print("\n" + json.dumps({"what": what, "at": time.time(), **values}), flush=True)


def first_token(generate: Generate) -> None:
    """Produce one token: the end of the start."""
    generate(_prompts(1, PROMPT_TOKENS), 1)
    tell("first_token")


def throughput(generate: Generate, *, rounds: int, new_tokens: int) -> None:
    """Time prefill alone (one new token), then prefill and `new_tokens` decode steps, for each batch.

    Every call gets prompts never seen before, so that no cache helps. Lines hold seconds; the runner subtracts.
    """
    for length in PREFILL_TOKENS:
        generate(_prompts(1, length), 1)
        for _ in range(rounds):
            tell("prefill", tokens=length, seconds=_timed(generate, 1, length, 1))
    for batch in BATCHES:
        generate(_prompts(batch, PROMPT_TOKENS), 4)
        for _ in range(rounds):
            one = _timed(generate, batch, PROMPT_TOKENS, 1)
            all_ = _timed(generate, batch, PROMPT_TOKENS, new_tokens + 1)
            tell("decode", batch=batch, steps=new_tokens, first_seconds=one, all_seconds=all_)


_random = random.Random(0)


def _prompts(batch: int, length: int) -> list[list[int]]:
    return [[_random.randrange(1000, 100_000) for _ in range(length)] for _ in range(batch)]


def _timed(generate: Generate, batch: int, length: int, new_tokens: int) -> float:
    prompts = _prompts(batch, length)
    start = time.perf_counter()
    generate(prompts, new_tokens)
    return time.perf_counter() - start
