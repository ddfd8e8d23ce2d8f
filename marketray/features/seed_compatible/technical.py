"""The technical set: 39 indicators with simple means, on price levels."""

from __future__ import annotations

from functools import partial

import polars as pl

from marketray.features.definition import Feature
from marketray.features.seed_compatible.shared import MACD_LOOKBACK, MACD_SIGNAL_LOOKBACK, simple_rsi
from marketray.features.windows import decay_lookback, mean, mean_size, standard_deviation

__all__ = ["seed_technical"]

_make = partial(Feature, group="seed_technical", source="seed-compatible")
_SPANS = (1, 5, 10, 30, 60, 90, 120, 150, 180, 210, 240, 270, 360)


def seed_technical() -> list[Feature]:
    """All 39 technical features."""
    return [
        *_returns(),
        *_rsi(),
        *_macd(),
        *_bollinger(),
        *_averages(),
        *_ranges(),
        *_momentum(),
        *_volatility(),
    ]


def _returns() -> list[Feature]:
    close = pl.col("close")
    return [
        _make(
            name=f"return_{n}",
            lookback=n + 1,
            expression=close / close.shift(n) - 1,
            formula=f"C / C[-{n}] - 1",
            exact=True,
        )
        for n in _SPANS
    ]


def _rsi() -> list[Feature]:
    return [
        _make(
            name=f"rsi_{n}",
            lookback=n + 1,
            expression=simple_rsi(n),
            formula=f"100 - 100 / (1 + SMA{n} of rises / SMA{n} of falls)",
            source="seed-compatible; RSI with simple means instead of Wilder's",
            unit="index 0-100",
            null_policy="null where the close did not move; 100 where it never fell",
        )
        for n in (14, 20)
    ]


def _macd() -> list[Feature]:
    close = pl.col("close")
    price = close.ewm_mean(span=12, adjust=False) - close.ewm_mean(span=26, adjust=False)
    make = partial(_make, source="seed-compatible; Appel 1979", unit="price")
    return [
        make(
            name="macd",
            lookback=MACD_LOOKBACK,
            expression=price,
            formula="EMA12 - EMA26 of C, started at the first value",
        ),
        make(
            name="macd_signal",
            lookback=MACD_SIGNAL_LOOKBACK,
            expression=pl.col("macd").ewm_mean(span=9, adjust=False),
            formula="EMA9(macd), started at the first value",
        ),
        make(
            name="macd_histogram",
            lookback=MACD_SIGNAL_LOOKBACK,
            expression=pl.col("macd") - pl.col("macd_signal"),
            formula="macd - macd_signal",
        ),
    ]


def _bollinger() -> list[Feature]:
    middle, sigma = pl.col("_mean_20"), pl.col("_close_std_20")
    make = partial(_make, lookback=20, source="seed-compatible; Bollinger 2001, sample standard deviation")
    return [
        make(name="bb_upper", expression=middle + 2 * sigma, formula="SMA20 + 2 sd20 of C", unit="price"),
        make(name="bb_middle", expression=middle, formula="SMA20 of C", unit="price"),
        make(name="bb_lower", expression=middle - 2 * sigma, formula="SMA20 - 2 sd20 of C", unit="price"),
        make(name="bb_width", expression=4 * sigma / middle, formula="(bb_upper - bb_lower) / bb_middle"),
        make(
            name="bb_position",
            expression=pl.when(sigma > 0).then(pl.col("_above_mean_20") / (4 * sigma) + 0.5),
            formula="(C - bb_lower) / (bb_upper - bb_lower)",
            unit="share of the band",
            null_policy="null where sd20 is 0",
        ),
    ]


def _averages() -> list[Feature]:
    close = pl.col("close")
    make = partial(_make, unit="price")
    short = [
        make(name=f"sma_{n}", lookback=n, expression=mean(close, n), formula=f"SMA{n} of C")
        for n in (7, 14, 21)
    ]
    long = make(
        name="sma_50",
        lookback=50,
        expression=pl.col("_mean_50"),
        formula="SMA50 of C; the advanced set defines it again, alike",
    )
    exponential = [
        make(
            name=f"ema_{n}",
            lookback=decay_lookback(2 / (n + 1)),
            expression=close.ewm_mean(span=n, adjust=False),
            formula=f"EMA{n} of C, weight 2 / {n + 1}, started at the first value",
        )
        for n in (7, 14, 21)
    ]
    return [*short, long, *exponential]


def _ranges() -> list[Feature]:
    known = pl.col("_previous_close").is_not_null()
    up = (pl.col("high") - pl.col("high").shift(1)).clip(lower_bound=0)
    down = (pl.col("low").shift(1) - pl.col("low")).clip(lower_bound=0)
    plus, minus = mean_size(up, 14), mean_size(down, 14)
    index = pl.when(plus + minus > 0).then(100 * (plus - minus).abs() / (plus + minus))
    return [
        _make(
            name="atr_14",
            lookback=15,
            expression=mean_size(pl.when(known).then(pl.col("_true_range")), 14),
            formula="SMA14 of max(H - L, |H - C[-1]|, |L - C[-1]|)",
            source="seed-compatible; ATR with a simple mean instead of Wilder's",
            unit="price",
        ),
        _make(
            name="adx_14",
            lookback=28,
            expression=mean(index, 14),
            formula="SMA14 of DX = 100 |DI+ - DI-| / (DI+ + DI-), DI from SMA14 of max(H - H[-1], 0) and "
            "max(L[-1] - L, 0), neither excluding the other",
            source="seed-compatible; ADX with simple means instead of Wilder's",
            unit="index 0-100",
            null_policy="null where one of the last 14 DX is 0 / 0",
        ),
    ]


def _momentum() -> list[Feature]:
    close = pl.col("close")
    differences = [
        _make(
            name=f"momentum_{n}",
            lookback=n + 1,
            expression=close - close.shift(n),
            formula=f"C - C[-{n}]",
            unit="price",
            exact=True,
        )
        for n in (5, 10, 20)
    ]
    rates = [
        _make(
            name=f"roc_{n}",
            lookback=n + 1,
            expression=(close - close.shift(n)) / close.shift(n) * 100,
            formula=f"100 (C - C[-{n}]) / C[-{n}]",
            unit="percent",
            exact=True,
        )
        for n in (5, 10)
    ]
    return [*differences, *rates]


def _volatility() -> list[Feature]:
    return [
        _make(
            name=f"volatility_{n}",
            lookback=n + 1,
            expression=standard_deviation(pl.col("_return_1"), n),
            formula=f"sd of C / C[-1] - 1 over {n} bars; the advanced set defines it again, alike",
            unit="return per bar",
        )
        for n in (20, 50)
    ]
