"""Order flow inside the bars, and the quoted spread where the data have one."""

from __future__ import annotations

import numpy as np
import polars as pl

from marketray.features.definition import Feature
from marketray.features.windows import mean, weighted_sum

__all__ = ["microstructure"]

_GROUP = "microstructure"


def microstructure() -> list[Feature]:
    """All microstructure features."""
    return [_imbalance(), *_imbalance_means(), _weighted_body(30), _spread()]


def _imbalance() -> Feature:
    high, low = pl.col("high"), pl.col("low")
    return Feature(
        name="order_flow_imbalance",
        group=_GROUP,
        lookback=1,
        expression=pl.when(high > low)
        .then((pl.col("close") - pl.col("open")) / (high - low))
        .when(high == low)
        .then(0.0),
        formula="(C - O) / (H - L); 0 where H = L",
        source="body over range",
        unit="share of the range, -1 to 1",
        exact=True,
    )


def _imbalance_means() -> list[Feature]:
    return [
        Feature(
            name=f"order_flow_mean_{n}",
            group=_GROUP,
            lookback=n,
            expression=mean(pl.col("order_flow_imbalance"), n),
            formula=f"mean of order_flow_imbalance over {n} bars",
            source="body over range",
            unit="share of the range, -1 to 1",
        )
        for n in (5, 10, 30, 60)
    ]


def _weighted_body(window: int) -> Feature:
    weights = np.arange(window, 0, -1) / window
    return Feature(
        name=f"weighted_body_{window}",
        group=_GROUP,
        lookback=window,
        expression=weighted_sum(pl.col("_body"), weights),
        formula=f"sum over k = 0..{window - 1} of ({window} - k) / {window} * (C - O) / C, k bars ago",
        source="linearly weighted sum of bodies",
    )


def _spread() -> Feature:
    bid, ask = pl.col("bid"), pl.col("ask")
    return Feature(
        name="spread_relative",
        group=_GROUP,
        lookback=1,
        expression=2 * (ask - bid) / (ask + bid),
        formula="(ask - bid) / mid",
        source="quoted spread",
        inputs=("bid", "ask"),
        exact=True,
    )
