"""Columns that several seed-compatible sets are made of, and how their features are declared."""

from __future__ import annotations

import polars as pl

from marketray.features.windows import decay_lookback, deviation, mean, mean_size, standard_deviation

__all__ = [
    "ANNUAL",
    "MACD_LOOKBACK",
    "MACD_SIGNAL_LOOKBACK",
    "flag",
    "seed_shared_columns",
    "simple_rsi",
]

ANNUAL = 252**0.5
"""Factor from a day's volatility to a year's; the sets apply it to bars of any length."""

MACD_LOOKBACK = decay_lookback(2 / 27)
MACD_SIGNAL_LOOKBACK = MACD_LOOKBACK + decay_lookback(2 / 10)


def seed_shared_columns() -> dict[str, pl.Expr]:
    """Shared columns by name; windows count bars, nothing looks ahead."""
    close, traded = pl.col("close"), pl.col("volume")
    change = close - pl.col("_previous_close")
    return {
        "_rise": change.clip(lower_bound=0),
        "_fall": (-change).clip(lower_bound=0),
        "_mean_20": mean(close, 20),
        "_mean_50": mean(close, 50),
        "_above_mean_20": deviation(close, 20),
        "_above_mean_50": deviation(close, 50),
        "_close_std_20": standard_deviation(close, 20),
        "_volume_mean_20": mean_size(traded, 20),
        "_volume_mean_50": mean_size(traded, 50),
        "_vwap_20": mean(close * traded, 20) / pl.col("_volume_mean_20"),
        "_macd_equal": close.ewm_mean(span=12) - close.ewm_mean(span=26),
    }


def simple_rsi(period: int) -> pl.Expr:
    """100 - 100 / (1 + SMA of rises / SMA of falls), as 100 G / (G + L); null where nothing moved."""
    gain, loss = mean_size(pl.col("_rise"), period), mean_size(pl.col("_fall"), period)
    return pl.when(gain + loss > 0).then(100 * gain / (gain + loss))


def flag(condition: pl.Expr) -> pl.Expr:
    """1.0 where the condition holds, 0.0 where it does not or cannot be told."""
    return condition.fill_null(value=False).cast(pl.Float64)
