"""States of the market: volatility against its own past, activity, trend, stress; all causal, none fitted."""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.shared import TINY
from marketray.features.windows import decay_lookback, mean, share_at_most

__all__ = ["regime", "regime_columns"]

_GROUP = "regime"
_PAST = 720
_EVERY = 5
_LOOKBACK = _PAST + 20  # volatility of 20 returns
_ADX = 2 * decay_lookback(1 / 14) + 1
_ABOVE = 1 + TINY  # so that a ratio that equals its bound is on one side however it is rounded


def regime_columns() -> dict[str, pl.Expr]:
    """Shared columns: volatility as a sum in a fixed order, its median, and the mean range of five bars.

    Comparisons turn on the last bit where two windows hold the same returns, so the sum of 20 squares is
    made of pairs, whose rounding is the same wherever the data are cut.
    """
    pairs = pl.col("_squares_2")
    return {
        "_squares_2": pl.col("_log_return") ** 2 + pl.col("_log_return").shift(1) ** 2,
        "_squares_4": pairs + pairs.shift(2),
        "_squares_8": pl.col("_squares_4") + pl.col("_squares_4").shift(4),
        "_squares_16": pl.col("_squares_8") + pl.col("_squares_8").shift(8),
        "_volatility": (pl.col("_squares_16") + pl.col("_squares_4").shift(16)).sqrt(),
        "_volatility_median": pl.col("_volatility").rolling_median(_PAST),
        "_range_5": mean(pl.col("range_1"), 5),
    }


def regime() -> list[Feature]:
    """All regime features."""
    return [_percentile(), *_levels(), *_states(), _stress()]


def _flag(
    name: str,
    lookback: int,
    state: pl.Expr,
    rule: str,
    inputs: tuple[str, ...] = (),
    null_policy: str = "",
) -> Feature:
    return Feature(
        name=name,
        group=_GROUP,
        lookback=lookback,
        expression=state.cast(pl.Float64),
        formula=f"1 where {rule}, else 0",
        source="regime by a fixed rule, causal",
        unit="0 or 1",
        inputs=inputs,
        null_policy=null_policy,
    )


def _percentile() -> Feature:
    return Feature(
        name=f"volatility_percentile_{_PAST}",
        group=_GROUP,
        lookback=_LOOKBACK,
        expression=share_at_most(pl.col("_volatility"), _PAST, _EVERY),
        formula=f"share of realized_volatility_20 at every {_EVERY}th of the last {_PAST} bars, the current "
        "one included, that is at most the current one",
        source="percentile rank, causal",
        unit="share, 0 to 1",
        exact=True,
    )


def _levels() -> list[Feature]:
    level, median = pl.col("_volatility"), pl.col("_volatility_median")
    rule = f"realized_volatility_20 {{}} times its median over {_PAST} bars"
    return [
        _flag(f"volatility_low_{_PAST}", _LOOKBACK, level < 0.7 / _ABOVE * median, rule.format("< 0.7")),
        _flag(f"volatility_high_{_PAST}", _LOOKBACK, level > 1.5 * _ABOVE * median, rule.format("> 1.5")),
    ]


def _states() -> list[Feature]:
    ratio, busy = pl.col("volatility_ratio_10_60"), pl.col("volume_ratio_5_20")
    adx = pl.col("adx_14")
    return [
        _flag("high_volatility", 61, ratio > 1.5 * _ABOVE, "volatility_ratio_10_60 > 1.5"),
        _flag(
            "high_volume",
            20,
            busy > 1.2 * _ABOVE,
            "volume_ratio_5_20 > 1.2",
            ("volume",),
            "null where volume_ratio_5_20 is",
        ),
        _flag("is_trending", _ADX, adx > 25 * _ABOVE, "adx_14 > 25"),
    ]


def _stress() -> Feature:
    span = pl.col("_range_5")
    low, high = span.rolling_min(_PAST), span.rolling_max(_PAST)
    flat = high - low <= TINY * high
    width = pl.when(flat).then(0.5).otherwise((span - low) / (high - low))
    return Feature(
        name="market_stress",
        group=_GROUP,
        lookback=_LOOKBACK,
        expression=0.6 * pl.col(f"volatility_percentile_{_PAST}") + 0.4 * width,
        formula=f"0.6 volatility_percentile_{_PAST} + 0.4 (m - min m) / (max m - min m), m = mean of "
        f"(H - L) / C over 5 bars, extremes over {_PAST} bars; the second part is 0.5 where m is constant",
        source="weighted index of price behaviour; needs no volume",
        unit="index, 0 to 1",
    )
