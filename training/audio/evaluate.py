"""Measures tiny-audio's accuracy on held-out questions: python -m training.audio.evaluate CHECKPOINT"""

import argparse
import time
from pathlib import Path

import torch

from ..backends import Sensorium
from ..evaluate import percent, table
from ..judge import normal
from . import heldout


def measure(backend, kinds, per_kind: int, show: int = 0) -> list[tuple[str, ...]]:
    """One row of the table for each kind."""
    rows = []
    for kind in kinds:
        items = [heldout.make(kind, i) for i in range(per_kind)]
        start = time.time()
        replies = backend.answer([item.messages for item in items])
        seconds = time.time() - start
        right = [normal(reply) == normal(item.answer) for item, reply in zip(items, replies, strict=True)]
        wrong = [pair for pair, ok in zip(zip(items, replies, strict=True), right, strict=True) if not ok]
        for item, reply in wrong[:show]:
            question = next(part["text"] for part in item.messages[-1]["content"] if part["type"] == "text")
            print(f"  [{kind}] {question!r}\n    want {item.answer}\n    got  {reply}")
        shares = [
            percent([ok for ok, item in zip(right, items, strict=True) if chosen(item)])
            for chosen in (
                lambda item: True,
                lambda item: item.lang == "en",
                lambda item: item.lang == "zh",
                lambda item: item.new_wording,
            )
        ]
        rows.append((kind, *shares))
        print(
            "{:18s} {:>6s}  en {:>6s}  zh {:>6s}  new wordings {:>6s}".format(*rows[-1]),
            f"{seconds:6.0f} s",
            flush=True,
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-kind", type=int, default=300)
    parser.add_argument("--kinds", nargs="*", default=heldout.KINDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=0, help="print this many wrong answers per kind")
    parser.add_argument("--write", type=Path, help="put the table between the marks of this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = measure(Sensorium(args.checkpoint), args.kinds, args.per_kind, args.show)
    if args.write:
        head, rest = args.write.read_text(encoding="utf-8").split("<!-- accuracy -->", 1)
        tail = rest.split("<!-- end -->", 1)[1]
        text = f"{head}<!-- accuracy -->\n{table(rows)}\n<!-- end -->{tail}"
        args.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
