"""Oscillators: RSI, MACD, stochastic, Bollinger bands."""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.shared import TINY
from marketray.features.windows import decay_lookback, deviation, mean, standard_deviation

__all__ = ["momentum", "momentum_columns"]

_GROUP = "momentum"
_MACD_LOOKBACK = decay_lookback(2 / 27)


def momentum() -> list[Feature]:
    """All oscillators."""
    return [_rsi(), *_macd(), *_stochastic(), *_bollinger()]


def _rsi() -> Feature:
    gain, loss = pl.col("_gain_14"), pl.col("_loss_14")
    moved = gain + loss > TINY * pl.col("close")
    return Feature(
        name="rsi_14",
        group=_GROUP,
        lookback=decay_lookback(1 / 14) + 1,
        expression=pl.when(moved).then(100 * gain / (gain + loss)).otherwise(50.0),
        formula="100 * G / (G + L), Wilder means over 14 bars of rises and falls; 50 where G + L <= 1e-9 C",
        source="Wilder 1978; TA-Lib RSI(14)",
        unit="index 0-100",
    )


def _macd() -> list[Feature]:
    close = pl.col("close")
    signal = pl.col("_macd_price").ewm_mean(span=9, adjust=False)
    both = _MACD_LOOKBACK + decay_lookback(2 / 10)
    source = "Appel 1979; TA-Lib MACD(12, 26, 9), divided by the close"
    return [
        Feature(
            name="macd",
            group=_GROUP,
            lookback=_MACD_LOOKBACK,
            expression=pl.col("_macd_price") / close,
            formula="(EMA12 - EMA26) / C",
            source=source,
        ),
        Feature(
            name="macd_signal",
            group=_GROUP,
            lookback=both,
            expression=signal / close,
            formula="EMA9(EMA12 - EMA26) / C",
            source=source,
        ),
        Feature(
            name="macd_histogram",
            group=_GROUP,
            lookback=both,
            expression=pl.col("macd") - pl.col("macd_signal"),
            formula="macd - macd_signal",
            source=source,
        ),
    ]


def _stochastic() -> list[Feature]:
    low, high = pl.col("low").rolling_min(14), pl.col("high").rolling_max(14)
    inside = pl.when(high > low).then(100 * (pl.col("close") - low) / (high - low))
    source = "Lane 1984; TA-Lib STOCHF(14, 3, SMA)"
    return [
        Feature(
            name="stochastic_k_14",
            group=_GROUP,
            lookback=14,
            expression=inside.otherwise(pl.when(high == low).then(50.0)),
            formula="100 * (C - min L) / (max H - min L) over 14 bars; 50 where the range is 0",
            source=source,
            unit="index 0-100",
            exact=True,
        ),
        Feature(
            name="stochastic_d_14",
            group=_GROUP,
            lookback=16,
            expression=mean(pl.col("stochastic_k_14"), 3),
            formula="SMA3(stochastic_k_14)",
            source=source,
            unit="index 0-100",
        ),
    ]


def _bollinger() -> list[Feature]:
    close, sigma = pl.col("close"), pl.col("_close_sigma_20")
    source = "Bollinger 2001; TA-Lib BBANDS(20, 2, 2, SMA), population standard deviation"
    return [
        Feature(
            name="bollinger_width_20",
            group=_GROUP,
            lookback=20,
            expression=4 * sigma / mean(close, 20),
            formula="(upper - lower) / SMA20, bands SMA20 +/- 2 sigma20",
            source=source,
        ),
        Feature(
            name="bollinger_position_20",
            group=_GROUP,
            lookback=20,
            expression=pl.when(sigma > 0)
            .then(deviation(close, 20) / (4 * sigma) + 0.5)
            .when(sigma == 0)
            .then(0.5),
            formula="(C - lower) / (upper - lower); 0.5 where sigma20 is 0",
            source=source,
            unit="share of the band",
        ),
    ]


def momentum_columns() -> dict[str, pl.Expr]:
    """Shared columns of this group."""
    close = pl.col("close")
    return {
        "_macd_price": close.ewm_mean(span=12, adjust=False) - close.ewm_mean(span=26, adjust=False),
        "_close_sigma_20": standard_deviation(close, 20, ddof=0),
    }
