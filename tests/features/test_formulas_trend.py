"""New trend features against TA-Lib and least squares; flat markets and ties by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import talib

from marketray.features.windows import window_age_of_maximum
from tests.features.prices import C, H, L, assert_formula, flat_row, rolling


def windows(values: np.ndarray, n: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, n)


def padded(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.full(len(C) - len(values), np.nan), values])


def correlation_squared() -> np.ndarray:
    return padded(np.array([np.corrcoef(np.arange(20), window)[0, 1] ** 2 for window in windows(C, 20)]))


def crossing(short: int, long: int) -> np.ndarray:
    return talib.SMA(C, timeperiod=short) / talib.SMA(C, timeperiod=long) - 1


def breakout(values: np.ndarray, sign: int) -> np.ndarray:
    """1 where the close is beyond all of the 20 values before its bar."""
    beyond = (sign * C[20:, None] > sign * windows(values, 20)[:-1]).all(axis=1)
    return padded(beyond.astype(float))


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    **{f"sma_distance_{n}": lambda n=n: C / talib.SMA(C, timeperiod=n) - 1 for n in (5, 7, 14, 21, 100)},
    **{f"ema_distance_{n}": lambda n=n: C / talib.EMA(C, timeperiod=n) - 1 for n in (5, 7, 12, 14, 21, 26)},
    "sma_cross_5_20": lambda: crossing(5, 20),
    "sma_cross_20_50": lambda: crossing(20, 50),
    "is_uptrend": lambda: np.where(crossing(20, 50) > 0, 1.0, 0.0),
    "zscore_50": lambda: (C - talib.SMA(C, timeperiod=50)) / rolling(C, 50).std().to_numpy(),
    "plus_di_14": lambda: talib.PLUS_DI(H, L, C, timeperiod=14),
    "minus_di_14": lambda: talib.MINUS_DI(H, L, C, timeperiod=14),
    "aroon_oscillator_25": lambda: talib.AROONOSC(H, L, timeperiod=25),
    "linear_slope_20": lambda: talib.LINEARREG_SLOPE(C, timeperiod=20) / C,
    "linear_r2_20": correlation_squared,
    "distance_from_high_20": lambda: C / talib.MAX(H, timeperiod=20) - 1,
    "distance_from_low_20": lambda: C / talib.MIN(L, timeperiod=20) - 1,
    "range_position_20": lambda: (
        (C - talib.MIN(L, timeperiod=20)) / (talib.MAX(H, timeperiod=20) - talib.MIN(L, timeperiod=20))
    ),
    "breakout_up_20": lambda: breakout(H, 1),
    "breakout_down_20": lambda: breakout(L, -1),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


def test_both_flags_are_seen_at_both_values() -> None:
    for name in ("is_uptrend", "breakout_up_20", "breakout_down_20"):
        assert set(pd.Series(FORMULAS[name]()).iloc[60:]) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("name", "neutral"),
    [
        ("range_position_20", 0.5),
        *((name, 0.0) for name in FORMULAS if name != "range_position_20" and not name.startswith("ema")),
    ],
)
def test_a_market_that_does_not_move_has_the_stated_neutral_value(name: str, neutral: float) -> None:
    assert flat_row()[name] == pytest.approx(neutral, abs=1e-12)


def test_age_of_the_maximum_counts_the_latest_of_equal_values() -> None:
    values = np.array([1.0, 3.0, 3.0, 2.0, 0.0, np.nan, 1.0, 1.0, 0.0])
    got = window_age_of_maximum(values, 3)
    np.testing.assert_array_equal(got, [np.nan, np.nan, 0, 1, 2, np.nan, np.nan, np.nan, 1])
    assert np.isnan(window_age_of_maximum(values, 10)).all()
