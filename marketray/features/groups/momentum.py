"""Momentum: strength of the recent rises against the falls, MACD, moves in units of the range.

The oscillators of the same group, which place the close in its recent range, are in `oscillators`.
"""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.oscillators import oscillators
from marketray.features.groups.shared import TINY
from marketray.features.windows import decay_lookback, mean

__all__ = ["momentum", "momentum_columns"]

_GROUP = "momentum"
_MACD_LOOKBACK = decay_lookback(2 / 27)


def momentum() -> list[Feature]:
    """All features of the group."""
    return [
        *(_rsi(n) for n in (9, 14, 21)),
        *(_simple_rsi(n) for n in (14, 20)),
        *_macd(),
        *oscillators(),
        _rate_of_change(12),
        *(_move_in_ranges(n) for n in (3, 5, 10, 20)),
    ]


def _rsi(period: int) -> Feature:
    gain, loss = pl.col(f"_gain_{period}"), pl.col(f"_loss_{period}")
    moved = gain + loss > TINY * pl.col("close")
    return Feature(
        name=f"rsi_{period}",
        group=_GROUP,
        lookback=decay_lookback(1 / period) + 1,
        expression=pl.when(moved).then(100 * gain / (gain + loss)).otherwise(50.0),
        formula=f"100 * G / (G + L), Wilder means over {period} bars of rises and falls; "
        "50 where G + L <= 1e-9 C",
        source=f"Wilder 1978; TA-Lib RSI({period})",
        unit="index 0-100",
    )


def _simple_rsi(period: int) -> Feature:
    """Rises minus falls are the whole move and their sum is the path, so that one window is enough."""
    move = pl.col("close") - pl.col("close").shift(period)
    path = period * mean(pl.col("_change").abs(), period)
    moved = path > TINY * pl.col("close")
    return Feature(
        name=f"rsi_simple_{period}",
        group=_GROUP,
        lookback=period + 1,
        expression=pl.when(moved).then(50 * (1 + move / path)).otherwise(50.0),
        formula=f"100 * G / (G + L), simple means over {period} bars of rises and falls; "
        "50 where their sum is <= 1e-9 C",
        source="Cutler's variant of Wilder 1978",
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


def _rate_of_change(span: int) -> Feature:
    close = pl.col("close")
    return Feature(
        name=f"roc_{span}",
        group=_GROUP,
        lookback=span + 1,
        expression=close / close.shift(span) - 1,
        formula=f"C[t] / C[t-{span}] - 1",
        source=f"TA-Lib ROC({span}) / 100",
        exact=True,
    )


def _move_in_ranges(span: int) -> Feature:
    close, spread = pl.col("close"), pl.col("_mean_range_14")
    return Feature(
        name=f"momentum_atr_{span}",
        group=_GROUP,
        lookback=decay_lookback(1 / 14) + 1,
        expression=pl.when(spread > TINY * close)
        .then((close - close.shift(span)) / spread)
        .when(spread <= TINY * close)
        .then(0.0),
        formula=f"(C[t] - C[t-{span}]) / ATR14; 0 where ATR14 <= 1e-9 C",
        source=f"TA-Lib MOM({span}) / ATR(14)",
        unit="average true ranges",
    )


def momentum_columns() -> dict[str, pl.Expr]:
    """Shared columns of this group."""
    return {"_macd_price": pl.col("_ema_12") - pl.col("_ema_26")}
