"""Volatility per bar, as standard deviations of log returns; never annualised."""

from __future__ import annotations

import math

import polars as pl

from marketray.features.definition import Feature
from marketray.features.windows import decay_lookback, mean, standard_deviation

__all__ = ["volatility"]

_GROUP = "volatility"
_UNIT = "log return per bar"


def volatility() -> list[Feature]:
    """All volatility features."""
    return [*_close_to_close(), *_range_based(), _yang_zhang(20), *_ranges()]


def _close_to_close() -> list[Feature]:
    squared = pl.col("_log_return") ** 2
    realized = [
        Feature(
            name=f"realized_volatility_{n}",
            group=_GROUP,
            lookback=n + 1,
            expression=mean(squared, n).sqrt(),
            formula=f"sqrt(mean of ln(C / C[-1])^2 over {n} bars)",
            source="Andersen and Bollerslev 1998",
            unit=_UNIT,
        )
        for n in (10, 20, 60)
    ]
    short, long = pl.col("realized_volatility_10"), pl.col("realized_volatility_60")
    return [
        *realized,
        Feature(
            name="volatility_ratio_10_60",
            group=_GROUP,
            lookback=61,
            expression=pl.when(long > 0).then(short / long).when(long == 0).then(1.0),
            formula="realized_volatility_10 / realized_volatility_60; 1 where the latter is 0",
            source="volatility regime, causal",
            unit="ratio",
        ),
        Feature(
            name="ewma_volatility_20",
            group=_GROUP,
            lookback=2 * decay_lookback(2 / 21) + 1,
            expression=squared.ewm_mean(span=20, adjust=False, ignore_nulls=True).sqrt(),
            formula="sqrt(EMA20 of ln(C / C[-1])^2)",
            source="RiskMetrics 1996",
            unit=_UNIT,
        ),
    ]


def _range_based() -> list[Feature]:
    span, body = pl.col("_log_range"), pl.col("_log_body")
    garman = 0.5 * span**2 - (2 * math.log(2) - 1) * body**2
    return [
        Feature(
            name="parkinson_volatility_20",
            group=_GROUP,
            lookback=20,
            expression=(mean(span**2, 20) / (4 * math.log(2))).sqrt(),
            formula="sqrt(mean of ln(H / L)^2 over 20 bars / (4 ln 2))",
            source="Parkinson 1980",
            unit=_UNIT,
        ),
        Feature(
            name="garman_klass_volatility_20",
            group=_GROUP,
            lookback=20,
            expression=mean(garman.clip(lower_bound=0), 20).sqrt(),
            formula="sqrt(mean of 0.5 ln(H / L)^2 - (2 ln 2 - 1) ln(C / O)^2 over 20 bars)",
            source="Garman and Klass 1980",
            unit=_UNIT,
        ),
        Feature(
            name="rogers_satchell_volatility_20",
            group=_GROUP,
            lookback=20,
            expression=mean(pl.col("_rogers_satchell"), 20).sqrt(),
            formula="sqrt(mean of ln(H / C) ln(H / O) + ln(L / C) ln(L / O) over 20 bars)",
            source="Rogers and Satchell 1991",
            unit=_UNIT,
        ),
    ]


def _yang_zhang(window: int) -> Feature:
    k = 0.34 / (1.34 + (window + 1) / (window - 1))
    gap = standard_deviation(pl.col("_log_gap"), window) ** 2
    body = standard_deviation(pl.col("_log_body"), window) ** 2
    drift_free = mean(pl.col("_rogers_satchell"), window)
    return Feature(
        name=f"yang_zhang_volatility_{window}",
        group=_GROUP,
        lookback=window + 1,
        expression=(gap + k * body + (1 - k) * drift_free).sqrt(),
        formula=f"sqrt(var ln(O / C[-1]) + k var ln(C / O) + (1 - k) RS^2) over {window} bars, "
        f"k = 0.34 / (1.34 + {window + 1} / {window - 1})",
        source="Yang and Zhang 2000",
        unit=_UNIT,
    )


def _ranges() -> list[Feature]:
    close = pl.col("close")
    return [
        Feature(
            name="atr_14",
            group=_GROUP,
            lookback=decay_lookback(1 / 14) + 1,
            expression=pl.col("_mean_range_14") / close,
            formula="Wilder mean over 14 bars of the true range / C",
            source="Wilder 1978; TA-Lib ATR(14), divided by the close",
        ),
        Feature(
            name="range_1",
            group=_GROUP,
            lookback=1,
            expression=(pl.col("high") - pl.col("low")) / close,
            formula="(H - L) / C",
            source="bar range",
            exact=True,
        ),
    ]
