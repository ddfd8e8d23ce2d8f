"""Feature rows of seeded bars with quotes and depth, by group, for the tests of formulas."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl

from marketray.features.catalog import Catalog, build_catalog
from marketray.features.kernel import compute
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, make_bars, sessions_of

DEPTH = ("bid_size", "ask_size")
GROUPS = ("volume", "microstructure", "liquidity", "candles", "regime", "session", "calendar", "gaps")


def with_depth(bars: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The bars with 1 to 49 lots on either side, and a close anywhere between the quotes."""
    rng = np.random.default_rng(seed)
    sizes = {name: pl.Series(rng.integers(1, 50, bars.height).astype(float)) for name in DEPTH}
    inside = pl.Series(rng.random(bars.height))
    moved = (pl.col("ask") - pl.col("bid")) * inside
    return bars.with_columns(**sizes, bid=pl.col("bid") + moved / 2, ask=pl.col("ask") + moved / 2)


BARS = with_depth(make_bars(4_000, seed=11, flat=False), seed=12)
OPEN, H, L, C, V, BID, ASK, BIDS, ASKS = (
    BARS[n].to_numpy().copy() for n in ("open", "high", "low", "close", "volume", "bid", "ask", *DEPTH)
)
RETURN = np.concatenate([[np.nan], C[1:] / C[:-1] - 1])


def catalog_of(interval_minutes: int = 1) -> Catalog:
    """The catalog of `GROUPS` for bars with every optional column."""
    return build_catalog(FeatureSettings(groups=GROUPS), (*COLUMNS, *DEPTH), interval_minutes)


CATALOG = catalog_of()


@cache
def rows() -> pl.DataFrame:
    """Features of `BARS`."""
    return compute(CATALOG, BARS, sessions_of(BARS["time"]))


@cache
def still_row() -> dict[str, float | None]:
    """The last features of 1,600 bars at one price without a short binary fraction, at one volume."""
    price, bars = pl.lit(4_000.1), make_bars(1_600, seed=3)
    same = dict.fromkeys(("open", "high", "low", "close", "bid", "ask"), price)
    still = bars.with_columns(**same, volume=pl.lit(7.0), bid_size=pl.lit(0.0), ask_size=pl.lit(0.0))
    return compute(CATALOG, still, sessions_of(still["time"])).row(-1, named=True)


def lagged(values: np.ndarray, n: int = 1) -> np.ndarray:
    """Values n bars ago, NaN before the first."""
    return np.concatenate([np.full(n, np.nan), values[:-n]])


def over(n: int, *columns: np.ndarray) -> list[np.ndarray]:
    """Windows (t - n, t] of each column, shape (rows, n); rows before the first full one are NaN."""
    return [
        np.lib.stride_tricks.sliding_window_view(np.concatenate([np.full(n - 1, np.nan), column]), n)
        for column in columns
    ]


def assert_formula(name: str, expected: np.ndarray, *, relative: float = 1e-7) -> None:
    """Null before the lookback and where the oracle has no finite value, else the oracle's values."""
    first = CATALOG[name].lookback - 1
    got, expected = rows()[name].to_numpy(), np.where(np.isfinite(expected), expected, np.nan)
    assert np.isnan(got[:first]).all()
    got, expected = got[first:], expected[first:]
    assert np.isfinite(got).mean() > 0.9
    spread = np.subtract(*np.nanpercentile(expected, [75, 25]))
    # 1e-7 of the spread: oracles that carry running sums and price levels are no closer
    np.testing.assert_allclose(got, expected, rtol=relative, atol=relative * spread, equal_nan=True)
