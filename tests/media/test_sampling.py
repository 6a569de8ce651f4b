from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.media.check import Rejected, fit
from sensorium.media.sampling import Sampling, even_times, num_frames, sample, thin

totals, rates = st.integers(1, 3000), st.sampled_from([1.0, 10.0, 24000 / 1001, 25.0, 30.0, 60.0])
samplings = st.builds(
    Sampling,
    fps=st.none() | st.floats(0.01, 100),
    num_frames=st.none() | st.integers(1, 1000),
    min_frames=st.integers(1, 16),
    max_frames=st.integers(1, 800),
    multiple=st.sampled_from([1, 2, 4]),
    spread=st.sampled_from(["ends", "starts", "middles"]),
)


@settings(max_examples=200)
@given(totals, rates, samplings)
def test_whatever_is_asked_the_frames_are_there_in_order_and_within_the_limits(
    total: int, rate: float, sampling: Sampling
) -> None:
    indices = sample(even_times(total, rate), rate, sampling)
    assert indices == sample(even_times(total, rate), rate, sampling)
    assert indices == sorted(set(indices))
    assert 0 <= indices[0] <= indices[-1] < total
    assert 1 <= len(indices) <= min(total, sampling.max_frames)
    assert len(indices) % sampling.multiple == 0 or len(indices) == min(total, sampling.max_frames, sampling.multiple)


@settings(max_examples=100)
@given(st.integers(4, 3000), rates, st.floats(0.1, 10))
def test_qwen3_vl_as_transformers_counts(total: int, rate: float, fps: float) -> None:
    count = min(max(int(total / rate * fps), 4), 768, total)
    wanted = np.linspace(0, total - 1, count).round().astype(int).tolist()
    assert sample(even_times(total, rate), rate, Sampling(fps=fps, multiple=1)) == wanted


@settings(max_examples=100)
@given(st.integers(4, 3000), rates, st.floats(0.1, 10))
def test_qwen2_vl_as_qwen_vl_utils_and_transformers_count(total: int, rate: float, fps: float) -> None:
    most = min(768, total) // 2 * 2
    count = math.floor(min(max(total / rate * fps, 4), most, total) / 2) * 2
    assert num_frames(total, rate, Sampling(fps=fps)) == count
    wanted = np.linspace(0, total - 1, count).round().astype(int).tolist()
    assert sample(even_times(total, rate), rate, Sampling(fps=fps)) == wanted
    starts = sample(even_times(total, rate), rate, Sampling(fps=fps, spread="starts"))
    assert starts == [index * total // count for index in range(count)]


@pytest.mark.parametrize(
    ("total", "given", "indices"),
    [
        (300, Sampling(num_frames=4), [0, 100, 199, 299]),
        (300, Sampling(num_frames=4, spread="middles"), [37, 112, 187, 262]),
        (300, Sampling(num_frames=4, spread="starts"), [0, 75, 150, 225]),
        (300, Sampling(num_frames=5), [0, 100, 199, 299]),  # half of 5 is rounded to the even 2, as Python does
        (3, Sampling(num_frames=8), [0, 2]),
        (3, Sampling(num_frames=8, multiple=1), [0, 1, 2]),
        (1, Sampling(), [0]),
        (300, Sampling(num_frames=100, max_frames=2), [0, 299]),
        (300, Sampling(fps=None, max_frames=3, multiple=1), [0, 150, 299]),
    ],
)
def test_known_cases(total: int, given: Sampling, indices: list[int]) -> None:
    assert sample(even_times(total, 30.0), 30.0, given) == indices


def test_start_and_end_cut_before_anything_is_counted() -> None:
    times = even_times(100, 10.0)
    assert sample(times, 10.0, Sampling(fps=1, min_frames=1, start=2.0, end=5.9)) == [20, 33, 46, 59]
    assert sample(times, 10.0, Sampling(num_frames=2, start=9.0, end=99.0)) == [90, 99]
    assert sample(times, 10.0, Sampling(num_frames=2, multiple=1, start=3.0, end=3.0)) == [30]
    for start, end in ((10.0, None), (3.01, 3.09), (50.0, 60.0)):
        with pytest.raises(Rejected, match=r"no frame between .*; its last frame is at 9\.90 s"):
            sample(times, 10.0, Sampling(start=start, end=end))


@given(st.integers(1, 500), samplings)
def test_frames_that_somebody_chose_are_kept_where_they_may_be(total: int, sampling: Sampling) -> None:
    kept = thin(total, sampling)
    assert len(kept) == min(total, sampling.max_frames, sampling.num_frames or total)
    assert kept == sorted(set(kept))
    assert 0 <= kept[0] <= kept[-1] < total


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 10**7))
def test_fit_keeps_the_shape_and_the_limit(height: int, width: int, most: int) -> None:
    small, large = fit(height, width, most)
    assert 1 <= small * large <= max(most, 1)
    assert (small, large) == (height, width) if height * width <= most else small <= height and large <= width
    assert fit(height, width, None) == (height, width)
