"""Seeded bars for the feature tests: gaps, missing minutes, flat stretches, spikes, volume and quotes."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import MarketSettings

MARKET = MarketSettings()
START = datetime(2024, 2, 19, tzinfo=UTC)
COLUMNS = ("time", "open", "high", "low", "close", "volume", "bid", "ask")


def make_bars(size: int, seed: int, *, flat: bool = True, start: datetime = START) -> pl.DataFrame:
    """`size` one-minute bars in the sessions of CMES from `start`, one minute in twenty missing.

    With `flat`, forty bars repeat the close before them and one bar jumps by 8 % and back.
    """
    rng = np.random.default_rng(seed)
    days = int(size / 1_000) + 6
    base = np.datetime64(start.replace(tzinfo=None), "us")
    minutes = base + np.arange(days * 1_440) * np.timedelta64(60_000_000, "us")
    times = pl.Series("time", minutes).dt.replace_time_zone("UTC")
    keep = (sessions_of(times).locate(times) >= 0) & (rng.random(len(times)) > 0.05)
    times = times.filter(pl.Series(keep)).head(size)
    assert len(times) == size
    steps = 2e-4 * rng.standard_t(4, size)
    body = 1.5e-4 * rng.standard_t(4, size)
    if flat:
        steps[size // 3 : size // 3 + 40] = body[size // 3 : size // 3 + 40] = 0.0
        steps[size // 2], steps[size // 2 + 1] = 0.08, -0.08
    close = 4_000 * np.exp(np.cumsum(steps))
    opened = close * np.exp(-body)
    reach = np.abs(rng.normal(0, 1e-4, (2, size)))
    if flat:
        reach[:, size // 3 : size // 3 + 40] = 0.0
    high, low = np.maximum(opened, close) * (1 + reach[0]), np.minimum(opened, close) * (1 - reach[1])
    half = close * 1e-5 * (1 + rng.random(size))
    return pl.DataFrame(
        {
            "time": times,
            "open": opened,
            "high": high,
            "low": low,
            "close": close,
            "volume": rng.integers(0, 400, size).astype(float),
            "bid": close - half,
            "ask": close + half,
        }
    )


def rough_bars(size: int, seed: int) -> pl.DataFrame:
    """`make_bars` with holes, silent stretches, and volumes, quotes and sizes of which some are missing."""
    rng = np.random.default_rng(seed)
    bars = make_bars(size, seed=seed)
    quiet = pl.Series(rng.random(size) < 0.1) | pl.Series(np.arange(size) // 50 == 40)
    bars = bars.with_columns(
        volume=pl.when(quiet).then(0.0).otherwise("volume"),
        bid_size=pl.Series(rng.integers(0, 4, size).astype(float)),
        ask_size=pl.Series(rng.integers(0, 4, size).astype(float)),
    )
    late = np.arange(size) > 2_000
    for name in ("volume", "bid", "ask", "bid_size", "ask_size"):
        unknown = pl.Series((rng.random(size) < 0.01) & late)
        bars = bars.with_columns(pl.when(~unknown).then(name).alias(name))
    gone = (rng.random(size) < 0.05) | ((np.arange(size) > 2_700) & (np.arange(size) < 2_800))
    return bars.filter(~pl.Series(gone))


def sessions_of(times: pl.Series) -> Sessions:
    """Sessions around the given times."""
    first, last = times[0], times[-1]
    return trading_sessions(MARKET.calendar, first.date(), last.date(), MARKET.breaks)


def store(lake: Lake, instrument: str, bars: pl.DataFrame) -> None:
    """Write the bars to bronze/bars, one partition a month."""
    keyed = bars.with_columns(outlier=False, month=pl.col("time").dt.strftime("%Y-%m"))
    for (month,), rows in keyed.group_by("month", maintain_order=True):
        table = rows.drop("month").to_arrow()
        content = table_hash(table)
        manifest = Manifest("test", content, table.num_rows, table.num_rows)
        lake.write("bronze/bars", {"instrument": instrument, "month": str(month)}, table, manifest)


def spread(rows: pl.DataFrame, name: str) -> float:
    """The feature's interquartile range."""
    low, high = rows[name].quantile(0.25), rows[name].quantile(0.75)
    return 0.0 if low is None or high is None else high - low


def assert_equal(
    got: pl.DataFrame, expected: pl.DataFrame, spreads: dict[str, float], exact: set[str]
) -> None:
    """Equality of laws 3 and 4: same nulls, and |a - b| <= 1e-9 max(|b|, IQR), or the same bits."""
    assert got.columns == expected.columns
    assert got["time"].to_list() == expected["time"].to_list()
    assert got["decision_at"].to_list() == expected["decision_at"].to_list()
    names = got.columns[2:]
    (x, null), (y, required) = (
        (rows.select(names).cast(pl.Float64).fill_null(0.0).to_numpy(), rows.select(pl.col(names).is_null()))
        for rows in (got, expected)
    )
    assert [n for n in names if not null[n].equals(required[n])] == []
    bits = np.array([name in exact for name in names])
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    close = np.abs(x - y) <= 1e-9 * np.maximum(np.abs(y), [spreads[name] for name in names])
    wrong = ~np.where(bits, same, close)
    assert not wrong.any(), {names[j]: np.abs(x - y)[:, j].max() for j in np.flatnonzero(wrong.any(axis=0))}
