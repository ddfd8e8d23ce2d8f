"""The volatility set: 12 features; what is "annualised" is so by sqrt(252) on bars of any length."""

from __future__ import annotations

import math
from functools import partial

import polars as pl

from marketray.features.definition import Feature
from marketray.features.seed_compatible.shared import ANNUAL, flag
from marketray.features.windows import decay_lookback, mean, mean_size, root_mean_square, standard_deviation

__all__ = ["seed_volatility"]

_MEDIAN = 720  # bars of the regime's median; the sets take the whole sample's, which looks ahead
_make = partial(Feature, group="seed_volatility", source="seed-compatible", unit="return times sqrt(252)")


def seed_volatility() -> list[Feature]:
    """All 12 volatility features."""
    return [*_historical(), *_range_based(), _yang_zhang(), *_regime(), *_realized_range(), _exponential()]


def _historical() -> list[Feature]:
    return [
        _make(
            name=f"hist_vol_{n}",
            lookback=n + 1,
            expression=pl.col(f"volatility_{n}") * ANNUAL,
            formula=f"sqrt(252) sd of C / C[-1] - 1 over {n} bars",
        )
        for n in (20, 50)
    ]


def _range_based() -> list[Feature]:
    span, body = pl.col("_log_range"), pl.col("_log_body")
    garman = 0.5 * span**2 - (2 * math.log(2) - 1) * body**2
    make = partial(_make, lookback=20)
    return [
        make(
            name="gk_vol",
            expression=mean_size(garman.clip(lower_bound=0), 20).sqrt() * ANNUAL,
            formula="sqrt(252 mean of 0.5 ln(H / L)^2 - (2 ln 2 - 1) ln(C / O)^2 over 20 bars)",
            source="seed-compatible; Garman and Klass 1980",
        ),
        make(
            name="parkinson_vol",
            expression=root_mean_square(span, 20) / math.sqrt(4 * math.log(2)) * ANNUAL,
            formula="sqrt(252 mean of ln(H / L)^2 over 20 bars / (4 ln 2))",
            source="seed-compatible; Parkinson 1980",
        ),
        make(
            name="rs_vol",
            expression=mean_size(pl.col("_rogers_satchell"), 20).sqrt() * ANNUAL,
            formula="sqrt(252 mean of ln(H / C) ln(H / O) + ln(L / C) ln(L / O) over 20 bars)",
            source="seed-compatible; Rogers and Satchell 1991",
        ),
    ]


def _yang_zhang() -> Feature:
    k = 0.34 / (1.34 + 21 / 19)
    gap = standard_deviation(pl.col("_log_gap"), 20) ** 2
    body = standard_deviation(pl.col("_log_body"), 20) ** 2
    return _make(
        name="yz_vol",
        lookback=21,
        expression=(gap + k * body + (1 - k) * mean_size(pl.col("_rogers_satchell"), 20)).sqrt() * ANNUAL,
        formula="sqrt(252 (var ln(O / C[-1]) + k var ln(C / O) + (1 - k) RS^2)) over 20 bars, "
        "k = 0.34 / (1.34 + 21 / 19)",
        source="seed-compatible; Yang and Zhang 2000",
    )


def _regime() -> list[Feature]:
    level = pl.col("hist_vol_20")
    median = level.rolling_median(_MEDIAN)
    make = partial(_make, lookback=20 + _MEDIAN, unit="flag")
    return [
        _make(
            name="vol_of_vol",
            lookback=40,
            expression=standard_deviation(level, 20),
            formula="sd of hist_vol_20 over 20 bars",
        ),
        make(
            name="vol_regime_low",
            expression=flag(level < 0.7 * median),
            formula=f"hist_vol_20 < 0.7 median of hist_vol_20 over {_MEDIAN} bars, for the whole sample's",
        ),
        make(
            name="vol_regime_high",
            expression=flag(level > 1.5 * median),
            formula=f"hist_vol_20 > 1.5 median of hist_vol_20 over {_MEDIAN} bars, for the whole sample's",
        ),
    ]


def _realized_range() -> list[Feature]:
    share = (pl.col("high") - pl.col("low")) / pl.col("close")
    return [
        _make(
            name="realized_range",
            lookback=1,
            expression=share,
            formula="(H - L) / C",
            unit="fraction",
            exact=True,
        ),
        _make(
            name="realized_range_ma",
            lookback=20,
            expression=mean(pl.col("realized_range"), 20),
            formula="SMA20 of realized_range",
            unit="fraction",
        ),
    ]


def _exponential() -> Feature:
    sigma = pl.col("_return_1").ewm_std(span=20, adjust=True, bias=False, ignore_nulls=True)
    return _make(
        name="ewma_vol",
        lookback=2 * decay_lookback(2 / 21) + 1,
        expression=sigma * ANNUAL,
        formula="sqrt(252) exponentially weighted sd of C / C[-1] - 1, span 20, weights of the bars at "
        "hand, unbiased",
    )
