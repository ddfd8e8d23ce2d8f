"""Efficiency and serial dependence of prices against statsmodels and NumPy on every window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from marketray.features.kernel import compute
from tests.features.market import sessions_of
from tests.features.quoted import (
    BARS,
    CATALOG,
    RETURN,
    C,
    assert_formula,
    lagged,
    over,
    still_row,
)


def efficiency() -> np.ndarray:
    (windows,) = over(21, C)
    return np.abs(windows[:, -1] - windows[:, 0]) / np.abs(np.diff(windows, axis=1)).sum(axis=1)


def autocorrelation() -> np.ndarray:
    pairs = zip(*over(60, RETURN, lagged(RETURN)), strict=True)
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in pairs])


def variance_ratio() -> np.ndarray:
    """Lo and MacKinlay 1988, equations 12: nq = 60 one-bar returns and their 56 sums of 5."""
    (windows,) = over(61, np.log(C))
    found = []
    for p in windows:
        mu = (p[-1] - p[0]) / 60
        single = ((np.diff(p) - mu) ** 2).sum() / 59
        scale = 5 * (60 - 5 + 1) * (1 - 5 / 60)
        found.append(((p[5:] - p[:-5] - 5 * mu) ** 2).sum() / scale / single)
    return np.array(found)


FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    "efficiency_ratio_20": efficiency,
    "return_autocorrelation_60": autocorrelation,
    "variance_ratio_5_60": variance_ratio,
    "zero_return_share_60": lambda: np.where(np.arange(len(C)) < 60, np.nan, 0.0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


def row_of(close: np.ndarray) -> dict[str, float]:
    """The last row of bars with these closes, open, high and low."""
    bars = BARS.head(len(close)).with_columns(
        **dict.fromkeys(("open", "high", "low", "close"), pl.Series(close))
    )
    return compute(CATALOG, bars, sessions_of(bars["time"])).row(-1, named=True)


def test_still_bars() -> None:
    row = still_row()
    assert (row["efficiency_ratio_20"], row["return_autocorrelation_60"]) == (0.0, 0.0)
    assert (row["variance_ratio_5_60"], row["zero_return_share_60"]) == (1.0, 1.0)


def test_a_price_that_bounces_between_two_quotes() -> None:
    row = row_of(np.tile([100.0, 101.0], 200))
    assert row["efficiency_ratio_20"] == 0.0
    assert row["return_autocorrelation_60"] == pytest.approx(-1.0)
    assert row["variance_ratio_5_60"] == pytest.approx(1 / 5 / (11 / 12) * 59 / 60)  # the swing of one bar
    assert row["roll_spread_20"] == pytest.approx(2 * 0.01, rel=0.02)  # twice half of a return's swing of 2 %


def test_steady_growth_is_flat_beside_its_own_rounding() -> None:
    row = row_of(100.0 * 1.001 ** np.arange(400))
    assert row["efficiency_ratio_20"] == pytest.approx(1.0)
    assert (row["return_autocorrelation_60"], row["variance_ratio_5_60"]) == (0.0, 1.0)
    assert row["roll_spread_20"] == 0.0
    assert row["zero_return_share_60"] == 0.0


def test_equal_closes_are_counted() -> None:
    close = np.repeat(np.linspace(100, 101, 100), 4)
    assert row_of(close)["zero_return_share_60"] == pytest.approx(45 / 60)
