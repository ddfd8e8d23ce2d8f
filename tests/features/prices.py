"""Feature rows of seeded bars, and of bars that never move, for the tests of formulas."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import polars as pl

from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, make_bars, sessions_of

GROUPS = ("returns", "lags", "momentum", "trend", "volatility")
BARS = make_bars(4_000, seed=11, flat=False)
H, L, C = (BARS[name].to_numpy().copy() for name in ("high", "low", "close"))
CATALOG = build_catalog(FeatureSettings(groups=GROUPS), COLUMNS)


@cache
def rows() -> pl.DataFrame:
    """Price features of `BARS`."""
    return compute(CATALOG, BARS, sessions_of(BARS["time"]))


@cache
def flat_row() -> dict[str, float]:
    """The last price features of 1,600 bars at one price that has no short binary fraction."""
    price = pl.lit(4_000.1)
    bars = make_bars(1_600, seed=3).with_columns(open=price, high=price, low=price, close=price)
    return compute(CATALOG, bars, sessions_of(bars["time"])).row(-1, named=True)


def rolling(values: np.ndarray, n: int) -> pd.core.window.rolling.Rolling:
    """Pandas windows of n values."""
    return pd.Series(values).rolling(n)


def assert_formula(name: str, expected: np.ndarray) -> None:
    """Null exactly before the lookback, then the oracle's values; all of them finite."""
    lookback, got = CATALOG[name].lookback, rows()[name]
    assert got.is_null().arg_true().to_list() == list(range(lookback - 1))
    assert got.drop_nulls().is_finite().all()
    # 10 bars more: TA-Lib starts its recursive means with simple ones
    expected = expected[lookback + 9 :]
    spread = np.subtract(*np.percentile(expected, [75, 25]))
    # 1e-7 of the spread: the oracles themselves carry running sums and price levels
    np.testing.assert_allclose(got.to_numpy()[lookback + 9 :], expected, rtol=1e-7, atol=1e-7 * spread)
