"""New momentum features and returns against TA-Lib and NumPy formulas; flat markets by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import talib

from marketray.features.windows import window_absolute_deviation
from tests.features.prices import C, H, L, assert_formula, flat_row


def sums(values: np.ndarray, n: int) -> np.ndarray:
    return np.convolve(values, np.ones(n), mode="full")[: len(values)]


def cutler(n: int) -> np.ndarray:
    change = np.diff(C, prepend=C[0])
    rises, falls = sums(np.maximum(change, 0), n), sums(np.maximum(-change, 0), n)
    with np.errstate(divide="ignore", invalid="ignore"):  # only rises: 100; no bar at the start: NaN
        return 100 - 100 / (1 + rises / falls)


def slow() -> np.ndarray:
    return talib.STOCH(
        H, L, C, fastk_period=14, slowk_period=3, slowk_matype=0, slowd_period=3, slowd_matype=0
    )[1]


def ratio(n: int) -> np.ndarray:
    return np.concatenate([np.full(n, np.nan), C[n:] / C[:-n]])


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    **{f"return_{n}": lambda n=n: ratio(n) - 1 for n in (150, 180, 210, 270, 360)},
    "log_return_1": lambda: np.log(ratio(1)),
    **{f"rsi_{n}": lambda n=n: talib.RSI(C, timeperiod=n) for n in (9, 21)},
    **{f"rsi_simple_{n}": lambda n=n: cutler(n) for n in (14, 20)},
    "roc_12": lambda: talib.ROC(C, timeperiod=12) / 100,
    **{
        f"momentum_atr_{n}": lambda n=n: talib.MOM(C, timeperiod=n) / talib.ATR(H, L, C, timeperiod=14)
        for n in (3, 5, 10, 20)
    },
    "stochastic_slow_d": slow,
    "cci_20": lambda: talib.CCI(H, L, C, timeperiod=20),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


@pytest.mark.parametrize(
    ("name", "neutral"),
    [
        *((f"rsi_{n}", 50.0) for n in (9, 21)),
        *((f"rsi_simple_{n}", 50.0) for n in (14, 20)),
        *((f"momentum_atr_{n}", 0.0) for n in (3, 5, 10, 20)),
        ("stochastic_slow_d", 50.0),
        ("cci_20", 0.0),
        ("roc_12", 0.0),
    ],
)
def test_a_market_that_does_not_move_has_the_stated_neutral_value(name: str, neutral: float) -> None:
    assert flat_row()[name] == pytest.approx(neutral, abs=1e-12)


@pytest.mark.parametrize(("size", "window"), [(5, 8), (8, 8), (300, 20), (20_000, 3)])
def test_absolute_deviation_is_the_mean_distance_from_the_mean(size: int, window: int) -> None:
    values = np.random.default_rng(size).normal(size=size).cumsum()
    got = window_absolute_deviation(values, window)
    assert np.isnan(got[: window - 1]).all()
    if size >= window:
        inside = np.lib.stride_tricks.sliding_window_view(values, window)
        expected = np.abs(inside - inside.mean(axis=1, keepdims=True)).mean(axis=1)
        np.testing.assert_allclose(got[window - 1 :], expected, atol=1e-12)


def test_absolute_deviation_misses_where_the_window_holds_a_missing_value() -> None:
    values = np.arange(40.0)
    values[17] = np.nan
    got = window_absolute_deviation(values, 5)
    assert np.flatnonzero(np.isnan(got)).tolist() == [*range(4), *range(17, 22)]
    assert pl.Series(got[22:]).to_list() == pytest.approx([1.2] * 18)
