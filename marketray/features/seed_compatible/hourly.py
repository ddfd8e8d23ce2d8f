"""The hourly set: 11 features that were made for hourly bars of shares, prefixed "hourly_"."""

from __future__ import annotations

from functools import partial

import polars as pl

from marketray.features.definition import Feature
from marketray.features.windows import mean, mean_size

__all__ = ["seed_hourly"]

_EPSILON = 1e-9
_POPULATION = (19 / 20) ** 0.5  # from the sample's standard deviation over 20 bars to the population's
_make = partial(Feature, group="seed_hourly", source="seed-compatible")


def seed_hourly() -> list[Feature]:
    """All 11 hourly features."""
    return [*_single(), *_averages(), *_spread(), _rsi(), *_relative(), _volume()]


def _single() -> list[Feature]:
    close = pl.col("close")
    make = partial(_make, exact=True)
    return [
        make(
            name="hourly_log_return",
            lookback=2,
            expression=pl.col("_log_return"),
            formula="ln C - ln C[-1]",
            unit="log return",
        ),
        make(
            name="hourly_range_rel",
            lookback=1,
            expression=(pl.col("high") - pl.col("low")) / close,
            formula="(H - L) / C",
        ),
        make(name="hourly_body_rel", lookback=1, expression=pl.col("_body"), formula="(C - O) / C"),
    ]


def _averages() -> list[Feature]:
    short, long = pl.col("hourly_ma_s"), pl.col("hourly_ma_l")
    return [
        _make(
            name="hourly_ma_s",
            lookback=5,
            expression=mean(pl.col("close"), 5),
            formula="SMA5 of C",
            unit="price",
        ),
        _make(
            name="hourly_ma_l", lookback=20, expression=pl.col("_mean_20"), formula="SMA20 of C", unit="price"
        ),
        _make(
            name="hourly_ma_cross",
            lookback=20,
            expression=(short - long) / long,
            formula="(hourly_ma_s - hourly_ma_l) / hourly_ma_l",
        ),
    ]


def _spread() -> list[Feature]:
    return [
        _make(
            name="hourly_volatility",
            lookback=20,
            expression=pl.col("_close_std_20") * _POPULATION,
            formula="population sd of C over 20 bars",
            unit="price",
        )
    ]


def _rsi() -> Feature:
    gain, loss = mean_size(pl.col("_rise"), 14), mean_size(pl.col("_fall"), 14)
    return _make(
        name="hourly_rsi",
        lookback=15,
        expression=100 * gain / (gain + loss + _EPSILON),
        formula="100 - 100 / (1 + SMA14 of rises / (SMA14 of falls + 1e-9))",
        source="seed-compatible; RSI with simple means instead of Wilder's",
        unit="index 0-100",
        null_policy="0 where the close did not move",
    )


def _relative() -> list[Feature]:
    return [
        _make(
            name="hourly_atr_rel",
            lookback=15,
            expression=pl.col("atr_14") / pl.col("close"),
            formula="SMA14 of the true range / C",
        ),
        _make(
            name="hourly_bb_width",
            lookback=20,
            expression=4 * pl.col("hourly_volatility") / pl.col("_mean_20"),
            formula="4 population sd of C over 20 bars / SMA20 of C",
        ),
    ]


def _volume() -> Feature:
    return _make(
        name="hourly_volume",
        lookback=1,
        expression=pl.col("volume"),
        formula="V",
        unit="volume",
        inputs=("volume",),
        exact=True,
    )
