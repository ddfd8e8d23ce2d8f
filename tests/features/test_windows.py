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
    deviation,
    mean,
    mean_size,
    root_mean_square,
    standard_deviation,
    window_weighted_sum,
)

VALUES = st.lists(st.floats(-1e3, 1e3, width=32), min_size=0, max_size=80)
X = pl.col("x")


def column(values: object, expression: pl.Expr) -> np.ndarray:
    """The expression's values over a column x; NaN where null."""
    return pl.DataFrame({"x": np.asarray(values, np.float64)}).select(expression).to_series().to_numpy()


@given(VALUES, st.integers(1, 12))
def test_means_equal_the_exact_sum_of_the_window(values: list[float], window: int) -> None:
    sizes = np.abs(values)
    got, of_sizes, rms = (
        column(v, e)
        for v, e in (
            (values, mean(X, window)),
            (sizes, mean_size(X, window)),
            (values, root_mean_square(X, window)),
        )
    )
    largest = max(sizes, default=0.0)
    for t in range(len(values)):
        inside = values[max(t - window + 1, 0) : t + 1]
        if len(inside) < window:
            assert np.isnan([got[t], of_sizes[t], rms[t]]).all()
            continue
        assert got[t] == pytest.approx(math.fsum(inside) / window, abs=1e-14 * largest)
        assert of_sizes[t] == pytest.approx(math.fsum(map(abs, inside)) / window, abs=1e-14 * largest)
        squares = math.fsum(v * v for v in inside) / window
        assert rms[t] == pytest.approx(math.sqrt(squares), abs=1e-13 * largest)
        if not any(inside):
            assert of_sizes[t] == rms[t] == 0


@given(VALUES, st.integers(2, 12), st.integers(0, 1))
def test_standard_deviation_equals_numpy(values: list[float], window: int, ddof: int) -> None:
    got = column(values, standard_deviation(X, window, ddof))
    for t in range(window - 1, len(values)):
        inside = values[t - window + 1 : t + 1]
        assert got[t] == pytest.approx(np.std(inside, ddof=ddof), rel=1e-9, abs=1e-10)
        if len(set(inside)) == 1:
            assert got[t] == 0


def test_a_spike_leaves_nothing_behind_in_a_flat_stretch() -> None:
    before = np.random.default_rng(1).normal(size=50)
    values = np.concatenate([before, [1e9], np.zeros(60)])
    assert (column(np.abs(values), mean_size(X, 20))[71:] == 0).all()
    assert (column(values, root_mean_square(X, 20))[71:] == 0).all()
    assert (column(values + 7.0, standard_deviation(X, 20))[71:] == 0).all()
    assert np.abs(column(values, mean(X, 20))[71:]).max() < 1e-9 * 1e-6


def test_a_spike_takes_no_digits_from_the_windows_after_it() -> None:
    """A move of 8 % among half-minute noise, as a share of the usual value after it."""
    usual = np.random.default_rng(4).normal(size=4_000) * 1e-4
    values = np.concatenate([[0.08, -0.08], usual])
    for expression in (
        root_mean_square(X, 20),
        standard_deviation(X, 20),
        mean_size(X.abs(), 20),
        mean(X, 20),
    ):
        with_spike, without = column(values, expression)[22:], column(usual, expression)[20:]
        assert np.abs(with_spike - without).max() <= 1e-10 * 1e-4


def test_standard_deviation_of_a_price_keeps_its_digits() -> None:
    steps = np.round(np.random.default_rng(2).normal(size=2_000) * 1024) / 1024
    level, around_zero = (column(v, standard_deviation(X, 20, 0))[19:] for v in (1e4 + steps, steps))
    np.testing.assert_allclose(level, around_zero, rtol=1e-10)


def test_deviation_is_value_minus_mean() -> None:
    values = 5_000 + np.random.default_rng(3).normal(size=500).cumsum()
    series = pd.Series(values)
    np.testing.assert_allclose(
        column(values, deviation(X, 30)), (series - series.rolling(30).mean()).to_numpy(), atol=1e-9
    )


def test_weighted_sum_weighs_the_current_value_first() -> None:
    values = np.array([1.0, 10.0, 100.0, 1_000.0])
    got = window_weighted_sum(values, np.array([3.0, 2.0, 1.0]))
    np.testing.assert_array_equal(got[2:], [321.0, 3_210.0])
    assert np.isnan(got[:2]).all()
    assert np.isnan(window_weighted_sum(values[:2], np.ones(3))).all()


def test_a_missing_value_empties_exactly_the_windows_that_hold_it() -> None:
    values = pl.Series("x", [float(v) if v != 17 else None for v in range(40)])
    empty = [*range(4), *range(17, 22)]
    for expression in (mean(X, 5), mean_size(X, 5), root_mean_square(X, 5), standard_deviation(X, 5)):
        got = values.to_frame().select(expression).to_series()
        assert got.is_null().arg_true().to_list() == empty


@pytest.mark.parametrize("alpha", [1 / 14, 2 / 27, 2 / 51])
def test_a_recursive_mean_forgets_its_start_within_the_declared_lookback(alpha: float) -> None:
    size = decay_lookback(alpha) + 1
    moved = pl.Series([1.0] + [0.0] * (size - 1)).ewm_mean(alpha=alpha, adjust=False)
    assert 0 < moved[-1] <= 1e-16
    assert moved[-10] > 1e-16 * 0.5
