"""What choosing the number of threads is worth, alone and beside a program that keeps one core busy.

    python benchmarks/threads.py [MODEL]

Decodes with every core all the time, and with as many threads as are measured to be best, in turns and each in a
process of its own; prints tokens a second and how many times faster the second is. MODEL: tiny-vl, or a checkpoint's
folder. Let nothing else run meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

BATCHES = (1, 8, 32)
SECONDS = 5.0  # for each batch size
ROUNDS = 3


def decode(model: str, fixed: bool) -> list[float]:
    """Return tokens a second for each batch size."""
    from sensorium import LLM, SamplingParams
    from sensorium.engine.team import Team
    from sensorium.worker import native

    if fixed:
        native.engine_team = lambda num_threads, device: Team(1, lambda threads: None)
    rates = []
    with LLM(model, max_num_seqs=max(BATCHES), max_model_len=2048) as llm:
        for batch in BATCHES:
            rates.append(_rate(llm, batch, SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)))
    return rates


def _rate(llm, batch: int, sampling) -> float:
    tokens, started = 0, time.perf_counter()
    while time.perf_counter() < started + SECONDS:
        prompts = [
            {"prompt_token_ids": [300 + (tokens + 7 * i + 31 * row) % 200 for i in range(16)]} for row in range(batch)
        ]
        tokens += sum(len(result.outputs[0].token_ids) for result in llm.generate(prompts, sampling, use_tqdm=False))
    return tokens / (time.perf_counter() - started)


def main() -> None:
    """Run the arms in turns and print a table."""
    model = sys.argv[1] if len(sys.argv) > 1 else "tiny-vl"
    print(
        f"| {len(os.sched_getaffinity(0))} cores, {model} | batch | all threads, tok/s | chosen, tok/s | chosen / all |"
    )
    print("|---|---:|---:|---:|---:|")
    for busy in (False, True):
        rates: dict[str, list[list[float]]] = {"fixed": [], "chosen": []}
        for _ in range(ROUNDS):
            for arm, found in rates.items():
                neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
                try:
                    told = subprocess.check_output([sys.executable, __file__, model, arm], text=True)
                    found.append(json.loads(told.splitlines()[-1]))
                finally:
                    if neighbour:
                        neighbour.kill()
                        neighbour.wait()
        for index, batch in enumerate(BATCHES):
            fixed, chosen = (statistics.median(each[index] for each in rates[arm]) for arm in rates)
            where = "one busy neighbour" if busy else "alone"
            print(f"| {where} | {batch} | {fixed:.1f} | {chosen:.1f} | {chosen / fixed:.2f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(decode(sys.argv[1], sys.argv[2] == "fixed")))
    else:
        main()
