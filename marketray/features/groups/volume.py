"""Volume against its own recent past; absent where the data have no volume."""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.windows import deviation, mean, standard_deviation

__all__ = ["volume"]

_GROUP = "volume"


def volume() -> list[Feature]:
    """All volume features."""
    traded = pl.col("volume")
    recent = mean(traded, 20)
    average = mean(pl.col("_traded"), 20) / recent
    ratio = Feature(
        name="volume_ratio_20",
        group=_GROUP,
        lookback=20,
        expression=pl.when(recent > 0).then(traded / recent),
        formula="V / mean of V over 20 bars; null where nothing was traded",
        source="relative volume",
        unit="ratio",
        inputs=("volume",),
    )
    distance = Feature(
        name="vwap_distance_20",
        group=_GROUP,
        lookback=20,
        expression=pl.when(recent > 0).then(pl.col("close") / average - 1),
        formula="C / VWAP - 1, VWAP = sum of V (H + L + C) / 3 over sum of V, 20 bars; null without trades",
        source="volume-weighted average price",
        inputs=("volume",),
    )
    return [ratio, *(_zscore(n) for n in (20, 60)), distance]


def _zscore(window: int) -> Feature:
    traded = pl.col("volume")
    sigma = standard_deviation(traded, window)
    return Feature(
        name=f"volume_zscore_{window}",
        group=_GROUP,
        lookback=window,
        expression=pl.when(sigma > 0).then(deviation(traded, window) / sigma).when(sigma == 0).then(0.0),
        formula=f"(V - mean of V) / sd of V over {window} bars; 0 where sd is 0",
        source="standard score",
        unit="standard deviations",
        inputs=("volume",),
    )
