"""Windows against pandas and against sums that know no rounding (math.fsum)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.features.windows import (
    decay_lookback,
    window_deviation,
    window_sum,
    window_variance,
    window_weighted_sum,
)

SERIES = (
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=0, max_size=80)
    .map(np.asarray)
    .map(lambda x: x.astype(np.float64))
)


@given(SERIES, st.integers(1, 12))
def test_sum_equals_the_exact_sum_of_the_window(values: np.ndarray, window: int) -> None:
    got = window_sum(values, window)
    assert len(got) == len(values)
    assert np.isnan(got[: window - 1]).all()
    for t in range(window - 1, len(values)):
        inside = values[t - window + 1 : t + 1]
        assert abs(got[t] - math.fsum(inside)) <= window * 2.3e-16 * np.abs(inside).sum()


@given(SERIES, st.integers(2, 12), st.integers(0, 1))
def test_variance_equals_pandas(values: np.ndarray, window: int, ddof: int) -> None:
    expected = [
        np.var(values[t - window + 1 : t + 1], ddof=ddof) if t >= window - 1 else np.nan
        for t in range(len(values))
    ]
    np.testing.assert_allclose(window_variance(values, window, ddof), expected, rtol=1e-10, atol=1e-10)


def test_a_spike_leaves_nothing_behind_in_a_flat_stretch() -> None:
    values = np.concatenate([np.random.default_rng(1).normal(size=50), [1e9], np.zeros(60)])
    assert (window_sum(values, 20)[71:] == 0).all()
    assert (window_variance(values, 20, 1)[71:] == 0).all()


def test_variance_of_a_level_keeps_its_digits() -> None:
    steps = np.random.default_rng(2).normal(size=2_000)
    level = window_variance(1e8 + np.round(steps * 1024) / 1024, 20, 0)
    np.testing.assert_allclose(
        level[19:], window_variance(np.round(steps * 1024) / 1024, 20, 0)[19:], rtol=1e-9
    )


def test_deviation_is_value_minus_mean() -> None:
    values = 5_000 + np.random.default_rng(3).normal(size=500).cumsum()
    series = pd.Series(values)
    np.testing.assert_allclose(
        window_deviation(values, 30), (series - series.rolling(30).mean()).to_numpy(), atol=1e-9
    )


def test_weighted_sum_weighs_the_current_value_first() -> None:
    values = np.array([1.0, 10.0, 100.0, 1_000.0])
    got = window_weighted_sum(values, np.array([3.0, 2.0, 1.0]))
    np.testing.assert_array_equal(got[2:], [321.0, 3_210.0])
    assert np.isnan(got[:2]).all()
    assert np.isnan(window_weighted_sum(values[:2], np.ones(3))).all()


def test_a_missing_value_empties_exactly_the_windows_that_hold_it() -> None:
    values = np.arange(40.0)
    values[17] = np.nan
    empty = np.r_[0:4, 17:22]
    for got in (window_sum(values, 5), window_variance(values, 5, 1), window_deviation(values, 5)):
        assert np.flatnonzero(np.isnan(got)).tolist() == empty.tolist()


@pytest.mark.parametrize("alpha", [1 / 14, 2 / 27, 2 / 51])
def test_a_recursive_mean_forgets_its_start_within_the_declared_lookback(alpha: float) -> None:
    size = decay_lookback(alpha) + 1
    moved = pl.Series([1.0] + [0.0] * (size - 1)).ewm_mean(alpha=alpha, adjust=False)
    assert 0 < moved[-1] <= 1e-16
    assert moved[-10] > 1e-16 * 0.5
