"""Measures accuracy on held-out questions: python -m training.evaluate CHECKPOINT"""

import argparse
import time
from pathlib import Path

import torch

from . import fonts, heldout, judge
from .backends import BACKENDS


def percent(results) -> str:
    return f"{100 * sum(results) / len(results):.1f}" if results else "-"


def measure(backend, kinds, per_kind, show=0):
    rows = []
    for kind in kinds:
        items = [heldout.make(kind, i) for i in range(per_kind)]
        start = time.time()
        replies = backend.answer([item.messages for item in items])
        seconds = time.time() - start
        verdicts = [judge.right(i, r) for i, r in zip(items, replies, strict=True)]
        shown = 0
        for item, reply, (ok, _) in zip(items, replies, verdicts, strict=True):
            if not ok and shown < show:
                shown += 1
                question = [p["text"] for p in item.messages[-1]["content"] if p["type"] == "text"]
                print(f"  [{kind}] {question[0]!r}\n    want {item.answer}\n    got  {reply}")
        oks = [ok for ok, _ in verdicts]
        ious = [v for _, v in verdicts if v is not None]
        pick = lambda test: percent([o for o, i in zip(oks, items, strict=True) if test(i)])  # noqa: B023,E731
        rows.append(
            (
                kind,
                percent(oks),
                pick(lambda i: i.lang == "en"),
                pick(lambda i: i.lang == "zh"),
                pick(lambda i: i.new_wording),
            )
        )
        note = f"  mean IoU {sum(ious) / len(ious):.3f}" if ious else ""
        print(
            f"{kind:15s} {rows[-1][1]:>6s}  en {rows[-1][2]:>6s}  zh {rows[-1][3]:>6s}"
            f"  new wordings {rows[-1][4]:>6s}  {seconds:5.0f} s{note}",
            flush=True,
        )
    return rows


def table(rows) -> str:
    lines = ["| kind | right, % | English | Chinese | held-out wordings |", "|---|---|---|---|---|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-kind", type=int, default=500)
    parser.add_argument("--kinds", nargs="*", default=heldout.KINDS)
    parser.add_argument("--backend", choices=BACKENDS, default="sensorium")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=0, help="print this many wrong answers per kind")
    parser.add_argument("--write", type=Path, help="put the table between the marks of this file")
    args = parser.parse_args()
    fonts.require()
    torch.set_num_threads(args.threads)
    rows = measure(BACKENDS[args.backend](args.checkpoint), args.kinds, args.per_kind, args.show)
    if args.write:
        text = args.write.read_text(encoding="utf-8")
        head, rest = text.split("<!-- accuracy -->", 1)
        tail = rest.split("<!-- end -->", 1)[1]
        new = f"{head}<!-- accuracy -->\n{table(rows)}\n<!-- end -->{tail}"
        args.write.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
