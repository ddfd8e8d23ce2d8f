"""Trailing returns, and the one-bar returns of the last hour for autoregression."""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature

__all__ = ["lags", "returns"]

_SPANS = (2, 3, 5, 10, 15, 20, 30, 60, 90, 120, 150, 180, 210, 240, 270, 360)
_LAGS = 60


def returns() -> list[Feature]:
    """Simple returns over the last n bars, n > 1, and the log return of the last one.

    The simple return of the last bar is `lags`' first, under that name alone.
    """
    close = pl.col("close")
    simple = [
        Feature(
            name=f"return_{n}",
            group="returns",
            lookback=n + 1,
            expression=close / close.shift(n) - 1,
            formula=f"C[t] / C[t-{n}] - 1",
            source="simple return",
            exact=True,
        )
        for n in _SPANS
    ]
    log = Feature(
        name="log_return_1",
        group="returns",
        lookback=2,
        expression=pl.col("_log_return"),
        formula="ln(C[t] / C[t-1])",
        source="log return",
        unit="log return",
    )
    return [*simple, log]


def lags() -> list[Feature]:
    """One-bar returns of the last 60 bars; lag 0 is the current bar's."""
    return [
        Feature(
            name=f"return_1_lag_{k}",
            group="lags",
            lookback=k + 2,
            expression=pl.col("_return_1").shift(k),
            formula=f"C[t-{k}] / C[t-{k + 1}] - 1",
            source="simple return",
            exact=True,
        )
        for k in range(_LAGS)
    ]
