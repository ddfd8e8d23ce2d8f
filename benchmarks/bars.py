"""Seeded one-minute bars with volume, quotes and sizes, in memory or month by month in a lake."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.sessions import month_sessions
from marketray.settings import MarketSettings

_MISSING = 0.01  # share of minutes without a bar


def minutes(market: MarketSettings, start: datetime, end: datetime) -> pl.Series:
    """Opens of the minutes in [start, end) that lie in the market's sessions."""
    times = pl.datetime_range(start, end, "1m", time_unit="us", eager=True, closed="left").alias("time")
    sessions = month_sessions(market, start.date(), end.date())
    return times.filter(pl.Series(sessions.locate(times) >= 0))


def walk(times: pl.Series, rng: np.random.Generator, price: float) -> pl.DataFrame:
    """Bars of a random walk that starts at `price`, one for each of `times`."""
    count = len(times)
    close = price * np.exp(np.cumsum(rng.normal(0, 2e-4, count)))
    opened = np.concatenate([[price], close[:-1]])
    reach = rng.uniform(2e-5, 1e-4, (2, count)) * close
    half = rng.integers(1, 5, count) * 1e-5 * close
    return pl.DataFrame(
        {
            "time": times,
            "open": opened,
            "high": np.maximum(opened, close) + reach[0],
            "low": np.minimum(opened, close) - reach[1],
            "close": close,
            "volume": rng.integers(10, 1_000, count).astype(float),
            "bid": close - half,
            "ask": close + half,
            "bid_size": rng.integers(1, 200, count).astype(float),
            "ask_size": rng.integers(1, 200, count).astype(float),
        }
    )


def fill_lake(lake: Lake, instrument: str, market: MarketSettings, rows: int) -> None:
    """Store the first `rows` bars since 2000 as bronze/bars, holding one month in memory."""
    rng = np.random.default_rng(7)
    start, price, left = datetime(2000, 1, 1, tzinfo=UTC), 5_000.0, rows
    while left > 0:
        end = start + timedelta(days=monthrange(start.year, start.month)[1])
        times = minutes(market, start, end)
        times = times.filter(pl.Series(rng.random(len(times)) >= _MISSING)).head(left)
        bars = walk(times, rng, price)
        table = bars.to_arrow()
        manifest = Manifest("benchmark", table_hash(table), bars.height, bars.height)
        lake.write("bronze/bars", {"instrument": instrument, "month": f"{start:%Y-%m}"}, table, manifest)
        start, price, left = end, bars["close"][-1], left - bars.height
