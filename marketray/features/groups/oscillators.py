"""Oscillators of the momentum group: stochastic, CCI, Bollinger bands.

The fast stochastic's D is the slow one's K, and Williams' %R is its K less 100: neither has a second column.
"""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.shared import TINY
from marketray.features.windows import absolute_deviation, deviation, mean

__all__ = ["oscillators"]

_GROUP = "momentum"


def oscillators() -> list[Feature]:
    """Oscillators of the momentum group."""
    return [*_stochastic(), _commodity_channel(20), *_bollinger()]


def _stochastic() -> list[Feature]:
    low, high = pl.col("_low_14"), pl.col("_high_14")
    inside = pl.when(high > low).then(100 * (pl.col("close") - low) / (high - low))
    source, slow = "Lane 1984; TA-Lib STOCHF(14, 3, SMA)", "Lane 1984; TA-Lib STOCH(14, 3, SMA, 3, SMA)"
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
        Feature(
            name="stochastic_slow_d",
            group=_GROUP,
            lookback=18,
            expression=mean(pl.col("stochastic_d_14"), 3),
            formula="SMA3(stochastic_d_14)",
            source=slow,
            unit="index 0-100",
        ),
    ]


def _commodity_channel(window: int) -> Feature:
    typical = pl.col("_typical")
    scatter = absolute_deviation(typical, window)
    return Feature(
        name=f"cci_{window}",
        group=_GROUP,
        lookback=window,
        expression=pl.when(scatter > TINY * typical)
        .then(deviation(typical, window) / (0.015 * scatter))
        .when(scatter <= TINY * typical)
        .then(0.0),
        formula="(P - SMA(P)) / (0.015 * mean of |P - SMA(P)|), P = (H + L + C) / 3, "
        f"over {window} bars; 0 where the mean is <= 1e-9 P",
        source=f"Lambert 1980; TA-Lib CCI({window})",
        unit="index",
    )


def _bollinger() -> list[Feature]:
    apart, sigma = pl.col("_close_deviation_20"), pl.col("_close_sigma_20")
    source = "Bollinger 2001; TA-Lib BBANDS(20, 2, 2, SMA), population standard deviation"
    return [
        Feature(
            name="bollinger_width_20",
            group=_GROUP,
            lookback=20,
            expression=4 * sigma / pl.col("_sma_20"),
            formula="(upper - lower) / SMA20, bands SMA20 +/- 2 sigma20",
            source=source,
        ),
        Feature(
            name="bollinger_position_20",
            group=_GROUP,
            lookback=20,
            expression=pl.when(sigma > 0).then(apart / (4 * sigma) + 0.5).when(sigma == 0).then(0.5),
            formula="(C - lower) / (upper - lower); 0.5 where sigma20 is 0",
            source=source,
            unit="share of the band",
        ),
    ]
