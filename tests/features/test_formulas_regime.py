"""Regime features against NumPy and TA-Lib on every window; ties and cuts of the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import talib

from marketray.features.kernel import compute
from marketray.features.windows import window_share_at_most
from tests.features.market import make_bars, sessions_of
from tests.features.quoted import CATALOG, C, H, L, V, assert_formula, lagged, over, still_row, with_depth

SQUARED = np.log(C / lagged(C)) ** 2


def volatility(n: int) -> np.ndarray:
    return np.sqrt(over(n, SQUARED)[0].mean(axis=1))


LEVEL = volatility(20)
(PAST,) = over(720, LEVEL)


def percentile() -> np.ndarray:
    chosen = PAST[:, ::-1][:, ::5]
    return (chosen <= LEVEL[:, None]).mean(axis=1)


def stress() -> np.ndarray:
    width = over(5, (H - L) / C)[0].mean(axis=1)
    (past,) = over(720, width)
    low, high = past.min(axis=1), past.max(axis=1)
    return 0.6 * percentile() + 0.4 * (width - low) / (high - low)


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    "volatility_percentile_720": percentile,
    "volatility_low_720": lambda: (0.7 * np.median(PAST, axis=1) > LEVEL).astype(float),
    "volatility_high_720": lambda: (1.5 * np.median(PAST, axis=1) < LEVEL).astype(float),
    "high_volatility": lambda: (volatility(10) / volatility(60) > 1.5).astype(float),
    "high_volume": lambda: (talib.SMA(V, timeperiod=5) / talib.SMA(V, timeperiod=20) > 1.2).astype(float),
    "is_trending": lambda: (talib.ADX(H, L, C, timeperiod=14) > 25).astype(float),
    "market_stress": stress,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


def test_still_bars_are_calm() -> None:
    row = still_row()
    flags = set(FORMULAS) - {"volatility_percentile_720", "market_stress"}
    assert {name: row[name] for name in flags} == dict.fromkeys(flags, 0.0)
    assert row["volatility_percentile_720"] == 1.0  # all are equal
    assert row["market_stress"] == pytest.approx(0.6 + 0.4 * 0.5)


def test_equal_volatilities_rank_alike_wherever_the_data_are_cut() -> None:
    """Returns repeat every 25 bars: the same volatility comes again, and one bit would move the rank."""
    steps = np.tile(np.random.default_rng(5).normal(0, 1e-3, 25), 80)
    close = pl.Series(2.0 ** np.round(20 * np.cumsum(steps)) * 1000.0)
    bars = with_depth(make_bars(2_000, seed=3), 4).with_columns(
        **dict.fromkeys(("open", "high", "low", "close"), close)
    )
    sessions = sessions_of(bars["time"])
    names = [f.name for f in CATALOG.features if f.group == "regime"]
    catalog = CATALOG.subset(names)
    whole = compute(catalog, bars, sessions)["volatility_percentile_720"]
    for cut in (1, 7, 13, 19, 500):
        part = compute(catalog, bars.slice(cut), sessions)["volatility_percentile_720"]
        assert part.slice(1_000).equals(whole.slice(1_000 + cut))


def test_a_missing_value_empties_the_windows_that_hold_it() -> None:
    values = np.arange(30.0)
    values[10] = np.nan
    got = window_share_at_most(values, 8, 2)
    assert np.flatnonzero(np.isnan(got)).tolist() == [*range(7), *range(10, 18)]
    assert set(got[~np.isnan(got)]) == {1.0}
    assert window_share_at_most(-values, 8, 2)[20] == 0.25
    assert np.isnan(window_share_at_most(values[:5], 8, 2)).all()
