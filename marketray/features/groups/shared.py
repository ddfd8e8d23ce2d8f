"""Columns that several features are made of; computed once, never stored."""

from __future__ import annotations

import polars as pl

from marketray.features.windows import deviation, mean, standard_deviation, wilder_mean

__all__ = ["EMA_SPANS", "SMA_SPANS", "TINY", "shared_columns"]

TINY = 1e-9
"""Movement, as a share of the close, below which a smoothed range counts as flat: a ratio of two such
numbers would be rounding noise, or history older than any declared lookback."""

SMA_SPANS = (5, 7, 10, 14, 20, 21, 50, 100)
"""Bars of the simple means of the close, ``_sma_n``."""

EMA_SPANS = (5, 7, 10, 12, 14, 20, 21, 26, 50)
"""Spans of the exponential means of the close, ``_ema_n``."""

_RSI_PERIODS = (9, 14, 21)
_EXTREME_SPANS = (14, 20, 60)


def shared_columns() -> dict[str, pl.Expr]:
    """Shared columns by name; log prices are natural logarithms, nothing looks ahead."""
    o, h, lo, c = (pl.col(name) for name in ("open", "high", "low", "close"))
    previous = pl.col("_previous_close")
    up, down = h - h.shift(1), lo.shift(1) - lo
    return {
        "_previous_close": c.shift(1),
        "_return_1": c / previous - 1,
        "_log_return": (c / previous).log(),
        "_log_range": (h / lo).log(),
        "_log_body": (c / o).log(),
        "_log_gap": (o / previous).log(),
        "_rogers_satchell": (h / c).log() * (h / o).log() + (lo / c).log() * (lo / o).log(),
        "_true_range": pl.max_horizontal(h - lo, (h - previous).abs(), (lo - previous).abs()),
        "_mean_range_14": wilder_mean(pl.when(previous.is_not_null()).then(pl.col("_true_range")), 14),
        "_change": c - previous,
        "_plus_14": wilder_mean(pl.when((up > down) & (up > 0)).then(up).otherwise(up * 0.0), 14),
        "_minus_14": wilder_mean(pl.when((down > up) & (down > 0)).then(down).otherwise(down * 0.0), 14),
        "_body": (c - o) / c,
        "_typical": (h + lo + c) / 3,
        "_traded": pl.col("_typical") * pl.col("volume"),
        **_close_means(),
        **_gains_and_losses(),
        **_extremes(),
    }


def _close_means() -> dict[str, pl.Expr]:
    """Means of the close; where its distance from the mean is needed too, the mean comes from that."""
    close = pl.col("close")
    apart = {f"_close_deviation_{n}": deviation(close, n) for n in (20, 50)}
    simple = {
        f"_sma_{n}": close - pl.col(f"_close_deviation_{n}") if n in (20, 50) else mean(close, n)
        for n in SMA_SPANS
    }
    exponential = {f"_ema_{n}": close.ewm_mean(span=n, adjust=False) for n in EMA_SPANS}
    sigma = {"_close_sigma_20": standard_deviation(close, 20, ddof=0)}
    return {**apart, **simple, **exponential, **sigma}


def _gains_and_losses() -> dict[str, pl.Expr]:
    change = pl.col("_change")
    up, down = change.clip(lower_bound=0), (-change).clip(lower_bound=0)
    gains = {f"_gain_{n}": wilder_mean(up, n) for n in _RSI_PERIODS}
    return {**gains, **{f"_loss_{n}": wilder_mean(down, n) for n in _RSI_PERIODS}}


def _extremes() -> dict[str, pl.Expr]:
    highs = {f"_high_{n}": pl.col("high").rolling_max(n) for n in _EXTREME_SPANS}
    return {**highs, **{f"_low_{n}": pl.col("low").rolling_min(n) for n in _EXTREME_SPANS}}
