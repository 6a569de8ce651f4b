"""From what the arms told to figures, ratios and a markdown table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from measure import PREFILL_TOKENS

Figures = dict[str, float]  # column key -> value
Told = Sequence[Mapping[str, Any]]  # the lines of one arm, all its runs together


class Column(NamedTuple):
    """One column; `better` None means that no ratio is formed."""

    key: str
    title: str
    digits: int
    better: Literal["more", "less"] | None


TEXT = (
    Column("start", "start to first token, s", 2, "less"),
    Column("prefill_512", "prefill 512, tok/s", 0, "more"),
    Column("prefill_2048", "prefill 2048, tok/s", 0, "more"),
    Column("decode_1", "decode batch 1, tok/s", 1, "more"),
    Column("decode_8", "batch 8", 0, "more"),
    Column("decode_32", "batch 32", 0, "more"),
    Column("peak_mb", "peak memory, MB", 0, "less"),
    Column("bandwidth", "batch 1, % of bandwidth", 0, None),
    Column("arithmetic", "prefill 2048, % of bf16 rate", 0, None),
)
IMAGES = (
    Column("start", "start to first answer, s", 2, "less"),
    Column("ttft_first", "new image, TTFT s", 3, "less"),
    Column("ttft_again", "same image, other question, TTFT s", 3, "less"),
    Column("requests", "16 new at once, req/s", 2, "more"),
    Column("tokens", "16 at once, output tok/s", 1, "more"),
    Column("gap_p50", "text stream beside images, p50 ms", 1, "less"),
    Column("gap_p99", "p99 ms", 1, "less"),
    Column("gap_ratio", "p99 / p50", 1, "less"),
    Column("peak_mb", "peak memory, MB", 0, "less"),
)


class Shape(NamedTuple):
    """What one token costs in the text checkpoint."""

    weight_bytes: int  # read in one decode step
    layer_parameters: int  # without embedding and head
    num_layers: int
    hidden_size: int

    def prefill_flop(self, tokens: int) -> float:
        """Multiply-adds, counted as two, of a causal prefill of `tokens`; the head runs for one token only."""
        return 2 * self.layer_parameters * tokens + 2 * self.num_layers * self.hidden_size * tokens**2


def text_figures(told: Told, starts: Sequence[float], peak_bytes: int, shape: Shape, limits: Figures) -> Figures:
    """The best of all repetitions; a decode rate is its steps over (prefill and decode) minus (prefill)."""
    figures: Figures = {"start": min(starts), "peak_mb": peak_bytes / 1e6}
    for length in {line["tokens"] for line in told if line["what"] == "prefill"}:
        seconds = min(line["seconds"] for line in told if line["what"] == "prefill" and line["tokens"] == length)
        figures[f"prefill_{length}"] = length / seconds
        if limits and length == max(PREFILL_TOKENS):
            figures["arithmetic"] = 100 * shape.prefill_flop(length) / seconds / 1e9 / limits["bf16_gflop_s"]
    for batch in {line["batch"] for line in told if line["what"] == "decode"}:
        lines = [line for line in told if line["what"] == "decode" and line["batch"] == batch]
        seconds = min(line["all_seconds"] for line in lines) - min(line["first_seconds"] for line in lines)
        figures[f"decode_{batch}"] = batch * lines[0]["steps"] / seconds
    if limits and "decode_1" in figures:
        figures["bandwidth"] = 100 * shape.weight_bytes * figures["decode_1"] / 1e9 / limits["read_gb_s"]
    return figures


def image_figures(told: Told, starts: Sequence[float], peak_bytes: int) -> Figures:
    """Medians of the single requests, the best round of 16 at once, percentiles of all gaps of the stream."""
    figures: Figures = {"start": min(starts), "peak_mb": peak_bytes / 1e6}
    for key, what in (("ttft_first", "image_first"), ("ttft_again", "image_again")):
        figures[key] = statistics.median(line["ttft_seconds"] for line in told if line["what"] == what)
    best = min((line for line in told if line["what"] == "images_at_once"), key=lambda line: float(line["seconds"]))
    figures["requests"] = best["count"] / best["seconds"]
    figures["tokens"] = best["tokens"] / best["seconds"]
    gaps = [1000 * gap for line in told if line["what"] == "stream" for gap in line["gaps_seconds"]]
    percentiles = statistics.quantiles(gaps, n=100, method="inclusive")
    figures["gap_p50"], figures["gap_p99"] = percentiles[49], percentiles[98]
    figures["gap_ratio"] = percentiles[98] / percentiles[49]
    return figures


def ratio(column: Column, ours: Figures, peer: Figures) -> float | None:
    """How many times better ours is (1.0: the same), or None where there is nothing to compare."""
    if column.better is None or not ours.get(column.key) or not peer.get(column.key):
        return None
    factor = ours[column.key] / peer[column.key]
    return factor if column.better == "more" else 1 / factor


def markdown(columns: Sequence[Column], rows: Mapping[str, Figures | str]) -> str:
    """One table: a row of figures for each arm, then a row of ratios for each peer.

    `rows` maps an arm's title to its figures, or to the reason why there are none; ours is the first.
    """
    header = ["", *(column.title for column in columns)]
    body: list[list[str]] = []
    for title, figures in rows.items():
        if isinstance(figures, str):
            body.append([title, f"not measured: {figures}", *[""] * (len(columns) - 1)])
        else:
            body.append([title, *(_cell(figures.get(column.key), column.digits) for column in columns)])
    ours, *peers = rows.items()
    if not isinstance(ours[1], str):
        for title, figures in peers:
            if not isinstance(figures, str):
                ratios = (ratio(column, ours[1], figures) for column in columns)
                body.append([f"**ours / {title}**", *(_cell(value, 2, "x") for value in ratios)])
    return _aligned([header, *body])


def _cell(value: float | None, digits: int, unit: str = "") -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"


def _aligned(rows: list[list[str]]) -> str:
    # A reason for a missing row may be long; it must not widen its column.
    widths = [max(len(row[i]) for row in rows if not row[min(i, 1)].startswith("not ")) for i in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for title, *cells in rows:
        padded = [title.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        lines.append("| " + " | ".join(padded) + " |")
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
