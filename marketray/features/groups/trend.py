"""Distances from moving averages and between them, directional movement.

The place in the recent range and the fitted line, of the same group, are in `channels`.
"""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.channels import channels
from marketray.features.groups.shared import EMA_SPANS, SMA_SPANS, TINY
from marketray.features.windows import decay_lookback, standard_deviation, wilder_mean

__all__ = ["trend"]

_GROUP = "trend"
_WILDER = decay_lookback(1 / 14)


def trend() -> list[Feature]:
    """All trend features."""
    return [*_distances(), *_crosses(), _zscore(50), *_directional(), *channels()]


def _distances() -> list[Feature]:
    close = pl.col("close")
    simple = [
        Feature(
            name=f"sma_distance_{n}",
            group=_GROUP,
            lookback=n,
            expression=close / pl.col(f"_sma_{n}") - 1,
            formula=f"C / SMA{n}(C) - 1",
            source="TA-Lib SMA",
        )
        for n in SMA_SPANS
    ]
    exponential = [
        Feature(
            name=f"ema_distance_{n}",
            group=_GROUP,
            lookback=decay_lookback(2 / (n + 1)),
            expression=close / pl.col(f"_ema_{n}") - 1,
            formula=f"C / EMA{n}(C) - 1, weight 2 / {n + 1}",
            source="TA-Lib EMA",
        )
        for n in EMA_SPANS
    ]
    return simple + exponential


def _crosses() -> list[Feature]:
    crosses = [
        Feature(
            name=f"sma_cross_{short}_{long}",
            group=_GROUP,
            lookback=long,
            expression=pl.col(f"_sma_{short}") / pl.col(f"_sma_{long}") - 1,
            formula=f"SMA{short}(C) / SMA{long}(C) - 1",
            source="moving-average crossover; TA-Lib SMA",
        )
        for short, long in ((5, 20), (20, 50))
    ]
    rising = Feature(
        name="is_uptrend",
        group=_GROUP,
        lookback=50,
        expression=(pl.col("sma_cross_20_50") > TINY).cast(pl.Float64),
        formula="1 where SMA20(C) > SMA50(C) by more than 1e-9 of it, else 0",
        source="moving-average crossover",
        unit="0 or 1",
    )
    return [*crosses, rising]


def _zscore(window: int) -> Feature:
    sigma = standard_deviation(pl.col("close"), window)
    return Feature(
        name=f"zscore_{window}",
        group=_GROUP,
        lookback=window,
        expression=pl.when(sigma > 0)
        .then(pl.col(f"_close_deviation_{window}") / sigma)
        .when(sigma == 0)
        .then(0.0),
        formula=f"(C - SMA{window}(C)) / sd of C over {window} bars; 0 where sd is 0",
        source="standard score",
        unit="standard deviations",
    )


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
        *(
            Feature(
                name=f"{name}_di_14",
                group=_GROUP,
                lookback=_WILDER + 1,
                expression=pl.when(spread > TINY * close)
                .then(100 * moved / spread)
                .when(spread <= TINY * close)
                .then(0.0),
                formula=f"DI{sign} = 100 DM{sign} / TR, Wilder means over 14; 0 where TR <= 1e-9 C",
                source=source,
                unit="index 0-100",
            )
            for name, sign, moved in (("plus", "+", plus), ("minus", "-", minus))
        ),
    ]
