"""Columns that several features are made of; computed once, never stored."""

from __future__ import annotations

import polars as pl

from marketray.features.windows import wilder_mean

__all__ = ["TINY", "shared_columns"]

TINY = 1e-9
"""Movement, as a share of the close, below which a smoothed range counts as flat: a ratio of two such
numbers would be rounding noise, or history older than any declared lookback."""


def shared_columns() -> dict[str, pl.Expr]:
    """Shared columns by name; log prices are natural logarithms, nothing looks ahead."""
    o, h, lo, c = (pl.col(name) for name in ("open", "high", "low", "close"))
    previous = pl.col("_previous_close")
    up, down = h - h.shift(1), lo.shift(1) - lo
    change = c - previous
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
        "_gain_14": wilder_mean(change.clip(lower_bound=0), 14),
        "_loss_14": wilder_mean((-change).clip(lower_bound=0), 14),
        "_plus_14": wilder_mean(pl.when((up > down) & (up > 0)).then(up).otherwise(up * 0.0), 14),
        "_minus_14": wilder_mean(pl.when((down > up) & (down > 0)).then(down).otherwise(down * 0.0), 14),
        "_body": (c - o) / c,
        "_typical": (h + lo + c) / 3,
        "_traded": pl.col("_typical") * pl.col("volume"),
    }
