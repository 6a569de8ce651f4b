from typing import Any

import pytest
import table

SHAPE = table.Shape(weight_bytes=1_000_000_000, layer_parameters=400_000_000, num_layers=24, hidden_size=896)
LIMITS = {"read_gb_s": 50.0, "bf16_gflop_s": 2000.0}


def test_decode_rate_leaves_the_prefill_out() -> None:
    told: list[dict[str, Any]] = [
        {"what": "decode", "batch": 8, "steps": 64, "first_seconds": 1.5, "all_seconds": 9.0},
        {"what": "decode", "batch": 8, "steps": 64, "first_seconds": 1.0, "all_seconds": 11.0},
    ]
    figures = table.text_figures(told, [3.0, 2.0], 5_000_000, SHAPE, LIMITS)
    assert figures == {"start": 2.0, "peak_mb": 5.0, "decode_8": 8 * 64 / (9.0 - 1.0)}


def test_shares_of_the_machine_limits() -> None:
    told: list[dict[str, Any]] = [
        {"what": "prefill", "tokens": 512, "seconds": 9.0},
        {"what": "prefill", "tokens": 2048, "seconds": 2.0},
        {"what": "decode", "batch": 1, "steps": 40, "first_seconds": 0.5, "all_seconds": 1.5},
    ]
    figures = table.text_figures(told, [1.0], 1, SHAPE, LIMITS)
    assert figures["bandwidth"] == pytest.approx(100 * 1.0 * 40 / 50.0)
    flop = 2 * 400e6 * 2048 + 2 * 24 * 896 * 2048**2
    assert figures["arithmetic"] == pytest.approx(100 * flop / 2.0 / 2000e9)


def test_image_figures_take_medians_the_best_round_and_percentiles() -> None:
    told: list[dict[str, Any]] = [
        *({"what": "image_first", "ttft_seconds": s} for s in (0.9, 0.5, 0.6)),
        *({"what": "image_again", "ttft_seconds": s} for s in (0.1, 0.3, 0.2)),
        {"what": "images_at_once", "count": 16, "seconds": 8.0, "tokens": 512},
        {"what": "images_at_once", "count": 16, "seconds": 4.0, "tokens": 512},
        {"what": "stream", "gaps_seconds": [0.010] * 98 + [0.050] * 3},
    ]
    figures = table.image_figures(told, [7.0], 2_000_000)
    assert (figures["ttft_first"], figures["ttft_again"]) == (0.6, 0.2)
    assert (figures["requests"], figures["tokens"]) == (4.0, 128.0)
    assert figures["gap_p50"] == pytest.approx(10)
    assert figures["gap_p99"] == pytest.approx(50)
    assert figures["gap_ratio"] == pytest.approx(5)


def test_a_ratio_above_one_always_means_ours_is_better() -> None:
    rate, start, share = table.TEXT[1], table.TEXT[0], table.TEXT[-1]
    assert table.ratio(rate, {rate.key: 30.0}, {rate.key: 20.0}) == 1.5
    assert table.ratio(start, {start.key: 2.0}, {start.key: 3.0}) == 1.5
    assert table.ratio(share, {share.key: 2.0}, {share.key: 3.0}) is None
    assert table.ratio(rate, {rate.key: 30.0}, {}) is None


def test_an_arm_that_failed_stands_in_the_table_with_its_reason() -> None:
    columns = table.TEXT[:2]
    page = table.markdown(
        columns, {"ours": {"start": 2.0, "prefill_512": 100.0}, "peer": "it broke", "other": {"start": 1.0}}
    )
    lines = page.splitlines()
    assert any("peer" in line and "not measured: it broke" in line for line in lines)
    assert "ours / peer" not in page
    assert any(line.startswith("| **ours / other**") and "0.50x" in line for line in lines)
    assert len({line.count("|") for line in lines}) == 1
