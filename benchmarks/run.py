"""Side-by-side figures of Sensorium and its peers on this machine, as one table with ratios.

python benchmarks/run.py [--quick] [--arms ours,vllm] [--parts text,images] [--skip-setup] [--write docs/benchmarks.md]

Arms run one after another, never two at once, each in a process of its own: first in the order of the table, then
backwards. Let nothing else run meanwhile. Results also go to benchmarks/work/results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import report
import setup
from engines import WORK
from runs import Effort, measure_images, measure_limits, measure_text, say

ARMS = ("ours", "transformers", "vllm", "llamacpp")

FULL = Effort(passes=2, rounds=2, new_tokens=64, images=5, image_rounds=2, stream_tokens=300)
QUICK = Effort(passes=1, rounds=1, new_tokens=16, images=2, image_rounds=1, stream_tokens=100)


def main() -> int:
    """Set up, measure, print, write. Returns 1 when an arm that was asked for could not be measured."""
    args = _arguments()
    effort = QUICK if args.quick else FULL
    failed = {} if args.skip_setup else setup.prepare(args.arms, images="images" in args.parts)
    busy = psutil.cpu_percent(interval=2.0)
    if busy > 10:
        say(f"other programs use {busy:.0f} % of the processor: the figures will be worth little")

    start = time.monotonic()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": report.machine(),
        "effort": effort._asdict(),
        "busy_percent": busy,
        "limits": measure_limits(),
        "versions": {},
        "told": {},
    }
    if "text" in args.parts:
        results["text"] = measure_text(args.arms, effort, results, failed)
    if "images" in args.parts:
        results["images"] = measure_images(args.arms, effort, results, failed)
    results["seconds"] = round(time.monotonic() - start)

    page = report.page(results)
    (WORK / "results.json").write_text(json.dumps(results, indent=1), "utf-8")
    (WORK / "results.md").write_text(page, "utf-8")
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(page, "utf-8")
    print(page)
    rows = [row for part in ("text", "images") for row in results.get(part, {}).values()]
    return 1 if any(isinstance(row, str) for row in rows) else 0


def _arguments() -> argparse.Namespace:
    def names(allowed: tuple[str, ...]) -> Any:
        def parse(text: str) -> list[str]:
            if unknown := set(text.split(",")) - set(allowed):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(allowed)}")
            return [name for name in allowed if name in text.split(",")]

        return parse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=names(ARMS), default=list(ARMS), help=f"some of {','.join(ARMS)}")
    parser.add_argument("--parts", type=names(("text", "images")), default=["text", "images"], help="text,images")
    parser.add_argument("--quick", action="store_true", help="one repetition, fewer tokens: under four minutes")
    parser.add_argument("--skip-setup", action="store_true", help="use what is under benchmarks/work/ as it is")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page there")
    return parser.parse_args()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that running programs are ended
    sys.exit(main())
