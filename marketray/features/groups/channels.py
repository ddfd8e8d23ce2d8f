"""Channels of the trend group: place in the recent range, breakouts, age of the extremes, fitted line."""

from __future__ import annotations

import numpy as np
import polars as pl

from marketray.features.definition import Feature
from marketray.features.windows import bars_since_maximum, weighted_sum

__all__ = ["channels"]

_GROUP = "trend"
_DONCHIAN = "Donchian channel"


def channels() -> list[Feature]:
    """Channels of the trend group."""
    return [
        *(_range_position(n) for n in (20, 60)),
        *_distance_from_extremes(20),
        *_breakouts(20),
        _aroon(25),
        *_line(20),
    ]


def _range_position(window: int) -> Feature:
    low, high = pl.col(f"_low_{window}"), pl.col(f"_high_{window}")
    return Feature(
        name=f"range_position_{window}",
        group=_GROUP,
        lookback=window,
        expression=pl.when(high > low)
        .then((pl.col("close") - low) / (high - low))
        .when(high == low)
        .then(0.5),
        formula=f"(C - min L) / (max H - min L) over {window} bars; 0.5 where the range is 0",
        source=_DONCHIAN,
        unit="share of the range",
        exact=True,
    )


def _distance_from_extremes(window: int) -> list[Feature]:
    return [
        Feature(
            name=f"distance_from_{name}_{window}",
            group=_GROUP,
            lookback=window,
            expression=pl.col("close") / pl.col(f"_{name}_{window}") - 1,
            formula=f"C / {extreme} over {window} bars - 1",
            source=_DONCHIAN,
            exact=True,
        )
        for name, extreme in (("high", "max H"), ("low", "min L"))
    ]


def _breakouts(window: int) -> list[Feature]:
    close = pl.col("close")
    above = close > pl.col(f"_high_{window}").shift(1)
    below = close < pl.col(f"_low_{window}").shift(1)
    return [
        Feature(
            name=f"breakout_{name}_{window}",
            group=_GROUP,
            lookback=window + 1,
            expression=broken.cast(pl.Float64),
            formula=f"1 where {rule} over the {window} bars before this one, else 0",
            source=_DONCHIAN,
            unit="0 or 1",
            exact=True,
        )
        for name, broken, rule in (("up", above, "C > max H"), ("down", below, "C < min L"))
    ]


def _aroon(period: int) -> Feature:
    since_high = bars_since_maximum(pl.col("high"), period + 1)
    since_low = bars_since_maximum(-pl.col("low"), period + 1)
    return Feature(
        name=f"aroon_oscillator_{period}",
        group=_GROUP,
        lookback=period + 1,
        expression=100 * (since_low - since_high) / period,
        formula=f"100 * (bars since min L - bars since max H) / {period} over {period + 1} bars; "
        "the latest of equal extremes",
        source=f"Chande 1995; TA-Lib AROONOSC({period})",
        unit="index -100-100",
        exact=True,
    )


def _line(window: int) -> list[Feature]:
    """Slope and fit of the least-squares line; `around` counts the bars from the window's middle."""
    around = (window - 1) / 2 - np.arange(window, dtype=np.float64)
    spread = float((around**2).sum())
    close, sigma = pl.col("close"), pl.col(f"_close_sigma_{window}")
    slope = pl.col(f"linear_slope_{window}") * close
    return [
        Feature(
            name=f"linear_slope_{window}",
            group=_GROUP,
            lookback=window,
            expression=weighted_sum(close, around / spread) / close,
            formula=f"slope per bar of the least-squares line through C over {window} bars / C",
            source=f"TA-Lib LINEARREG_SLOPE({window}), divided by the close",
            unit="fraction per bar",
        ),
        Feature(
            name=f"linear_r2_{window}",
            group=_GROUP,
            lookback=window,
            expression=pl.when(sigma > 0)
            .then((slope**2 * spread / (window * sigma**2)).clip(upper_bound=1.0))
            .when(sigma == 0)
            .then(0.0),
            formula=f"R2 of that line, squared correlation of C with time over {window} bars; "
            "0 where C does not move",
            source="coefficient of determination",
            unit="share of the variance",
        ),
    ]
