"""Distances from moving averages, directional movement, place in the recent range."""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.shared import TINY
from marketray.features.windows import decay_lookback, mean, wilder_mean

__all__ = ["trend"]

_GROUP = "trend"
_WILDER = decay_lookback(1 / 14)


def trend() -> list[Feature]:
    """All trend features."""
    return [*_distances(), *_directional(), _range_position(60)]


def _distances() -> list[Feature]:
    close = pl.col("close")
    simple = [
        Feature(
            name=f"sma_distance_{n}",
            group=_GROUP,
            lookback=n,
            expression=close / mean(close, n) - 1,
            formula=f"C / SMA{n}(C) - 1",
            source="TA-Lib SMA",
        )
        for n in (10, 20, 50)
    ]
    exponential = [
        Feature(
            name=f"ema_distance_{n}",
            group=_GROUP,
            lookback=decay_lookback(2 / (n + 1)),
            expression=close / close.ewm_mean(span=n, adjust=False) - 1,
            formula=f"C / EMA{n}(C) - 1, weight 2 / {n + 1}",
            source="TA-Lib EMA",
        )
        for n in (10, 20, 50)
    ]
    return simple + exponential


def _directional() -> list[Feature]:
    close, plus, minus = pl.col("close"), pl.col("_plus_14"), pl.col("_minus_14")
    spread = pl.col("_mean_range_14")
    index = pl.when(plus + minus > TINY * close).then(100 * (plus - minus).abs() / (plus + minus))
    source = "Wilder 1978; TA-Lib ADX(14), PLUS_DI(14), MINUS_DI(14)"
    return [
        Feature(
            name="adx_14",
            group=_GROUP,
            lookback=2 * _WILDER + 1,
            expression=wilder_mean(index.otherwise((plus + minus) * 0.0), 14),
            formula="Wilder mean over 14 of DX = 100 |DM+ - DM-| / (DM+ + DM-); DX 0 where nothing moved",
            source=source,
            unit="index 0-100",
        ),
        Feature(
            name="di_difference_14",
            group=_GROUP,
            lookback=_WILDER + 1,
            expression=pl.when(spread > TINY * close)
            .then(100 * (plus - minus) / spread)
            .when(spread <= TINY * close)
            .then(0.0),
            formula="DI+ - DI- = 100 (DM+ - DM-) / TR, Wilder means over 14; 0 where TR <= 1e-9 C",
            source=source,
            unit="index -100-100",
        ),
    ]


def _range_position(window: int) -> Feature:
    low, high = pl.col("low").rolling_min(window), pl.col("high").rolling_max(window)
    return Feature(
        name=f"range_position_{window}",
        group=_GROUP,
        lookback=window,
        expression=pl.when(high > low)
        .then((pl.col("close") - low) / (high - low))
        .when(high == low)
        .then(0.5),
        formula=f"(C - min L) / (max H - min L) over {window} bars; 0.5 where the range is 0",
        source="Donchian channel",
        unit="share of the range",
        exact=True,
    )
