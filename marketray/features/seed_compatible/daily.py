"""The daily set: 32 features that were made for daily bars of shares, prefixed "daily_".

The set's 33rd column was the label, and is left out.
"""

from __future__ import annotations

from functools import partial

import polars as pl

from marketray.features.definition import Feature
from marketray.features.seed_compatible.shared import MACD_LOOKBACK, MACD_SIGNAL_LOOKBACK, simple_rsi
from marketray.features.windows import deviation, mean, standard_deviation

__all__ = ["seed_daily"]

_make = partial(Feature, group="seed_daily", source="seed-compatible")
_with_volume = partial(_make, inputs=("volume",))
_UNTRADED = "null where nothing was traded over 20 bars"


def seed_daily() -> list[Feature]:
    """All 32 daily features."""
    return [
        *_momentum(),
        *_volatility(),
        *_volume(),
        *_distances(),
        *_candle(),
        *_rsi(),
        *_macd(),
        *_bollinger(),
        *_average_price(),
    ]


def _momentum() -> list[Feature]:
    close = pl.col("close")
    return [
        _make(
            name=f"daily_momentum_{n}",
            lookback=n + 1,
            expression=close / close.shift(n) - 1,
            formula=f"C / C[-{n}] - 1",
            exact=True,
        )
        for n in (3, 5, 10, 20)
    ]


def _volatility() -> list[Feature]:
    close = pl.col("close")
    sigma = {5: standard_deviation(close, 5), 10: standard_deviation(close, 10), 20: pl.col("_close_std_20")}
    found = []
    for n, expression in sigma.items():
        level = pl.col(f"daily_volatility_{n}")
        found += [
            _make(
                name=f"daily_volatility_{n}",
                lookback=n,
                expression=expression,
                formula=f"sd of C over {n} bars",
                unit="price",
            ),
            _make(
                name=f"daily_vol_ratio_{n}",
                lookback=n + 49,
                expression=level / mean(level, 50),
                formula=f"daily_volatility_{n} / SMA50 of it",
                unit="ratio",
                null_policy="null where the SMA50 is 0",
            ),
        ]
    return found


def _volume() -> list[Feature]:
    traded, average = pl.col("volume"), pl.col("_volume_mean_20")
    return [
        _with_volume(
            name="daily_volume_sma",
            lookback=20,
            expression=average,
            formula="SMA20 of V",
            unit="volume",
        ),
        _with_volume(
            name="daily_volume_ratio",
            lookback=20,
            expression=traded / average,
            formula="V / SMA20 of V",
            unit="ratio",
            null_policy=_UNTRADED,
        ),
        _with_volume(
            name="daily_price_volume",
            lookback=1,
            expression=pl.col("close") * traded,
            formula="C V",
            unit="price times volume",
            exact=True,
        ),
    ]


def _distances() -> list[Feature]:
    close = pl.col("close")
    above = {
        10: deviation(close, 10) / mean(close, 10),
        20: pl.col("_above_mean_20") / pl.col("_mean_20"),
        50: pl.col("_above_mean_50") / pl.col("_mean_50"),
    }
    return [
        _make(
            name=f"daily_price_vs_sma_{n}",
            lookback=n,
            expression=expression,
            formula=f"(C - SMA{n}) / SMA{n} of C",
        )
        for n, expression in above.items()
    ]


def _candle() -> list[Feature]:
    o, h, lo, c = (pl.col(name) for name in ("open", "high", "low", "close"))
    previous = pl.col("_previous_close")
    make = partial(_make, lookback=1, exact=True)
    return [
        make(name="daily_high_low_ratio", expression=(h - lo) / c, formula="(H - L) / C"),
        make(name="daily_close_vs_high", expression=(c - h) / h, formula="(C - H) / H"),
        make(name="daily_close_vs_low", expression=(c - lo) / lo, formula="(C - L) / L"),
        make(
            name="daily_gap", lookback=2, expression=(o - previous) / previous, formula="(O - C[-1]) / C[-1]"
        ),
        make(name="daily_intraday_return", expression=(c - o) / o, formula="(C - O) / O"),
    ]


def _rsi() -> list[Feature]:
    values = {9: simple_rsi(9), 14: pl.col("rsi_14"), 21: simple_rsi(21)}
    return [
        _make(
            name=f"daily_rsi_{n}",
            lookback=n + 1,
            expression=expression,
            formula=f"100 - 100 / (1 + SMA{n} of rises / SMA{n} of falls)",
            source="seed-compatible; RSI with simple means instead of Wilder's",
            unit="index 0-100",
            null_policy="null where the close did not move; 100 where it never fell",
        )
        for n, expression in values.items()
    ]


def _macd() -> list[Feature]:
    price, signal = pl.col("_macd_equal"), pl.col("daily_macd_signal")
    make = partial(_make, source="seed-compatible; Appel 1979", unit="price")
    return [
        make(
            name="daily_macd",
            lookback=MACD_LOOKBACK,
            expression=price,
            formula="EMA12 - EMA26 of C, weights of the bars at hand summing to 1",
        ),
        make(
            name="daily_macd_signal",
            lookback=MACD_SIGNAL_LOOKBACK,
            expression=price.ewm_mean(span=9),
            formula="EMA9(daily_macd), weights of the bars at hand summing to 1",
        ),
        make(
            name="daily_macd_histogram",
            lookback=MACD_SIGNAL_LOOKBACK,
            expression=price - signal,
            formula="daily_macd - daily_macd_signal",
        ),
    ]


def _bollinger() -> list[Feature]:
    formulas = {
        "upper": "SMA20 + 2 sd20 of C",
        "lower": "SMA20 - 2 sd20 of C",
        "position": "(C - lower) / (upper - lower) of the bands SMA20 +/- 2 sd20 of C",
    }
    return [
        _make(
            name=f"daily_bb_{what}",
            lookback=20,
            expression=pl.col(f"bb_{what}"),
            formula=f"{formula}; the same as bb_{what}",
            source="seed-compatible; Bollinger 2001, sample standard deviation",
            unit="share of the band" if what == "position" else "price",
            null_policy="null where sd20 is 0" if what == "position" else "",
        )
        for what, formula in formulas.items()
    ]


def _average_price() -> list[Feature]:
    make = partial(_with_volume, lookback=20, null_policy=_UNTRADED)
    return [
        make(
            name="daily_vwap",
            expression=pl.col("_vwap_20"),
            formula="sum of C V / sum of V over 20 bars",
            unit="price",
        ),
        make(
            name="daily_price_vs_vwap",
            expression=pl.col("close") / pl.col("_vwap_20"),
            formula="C / daily_vwap",
            unit="ratio",
        ),
    ]
