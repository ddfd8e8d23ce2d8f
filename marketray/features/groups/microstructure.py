"""Order flow inside the bars, efficiency and serial dependence of prices, and the quoted spread."""

from __future__ import annotations

import numpy as np
import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.shared import TINY
from marketray.features.windows import mean, mean_size, standard_deviation, weighted_sum

__all__ = ["microstructure", "microstructure_columns"]

_GROUP = "microstructure"


def microstructure_columns() -> dict[str, pl.Expr]:
    """Shared columns: moments of returns and of their products with the return before, path lengths."""
    change = pl.col("_return_1")
    means = {f"_return_mean_{n}": mean(change, n) for n in (20, 60)}
    sigmas = {f"_return_sigma_{n}": standard_deviation(change, n) for n in (20, 60)}
    sizes = {f"_return_size_{n}": mean_size(pl.col("_return_abs"), n) for n in (20, 60)}
    products = {f"_return_product_{n}": mean(change * change.shift(1), n) for n in (20, 60)}
    covariances = {
        f"_return_covariance_{n}": pl.col(f"_return_product_{n}")
        - pl.col(f"_return_mean_{n}") * pl.col(f"_return_mean_{n}").shift(1)
        for n in (20, 60)
    }
    others = {
        "_return_abs": change.abs(),
        "_log_return_5": (pl.col("close") / pl.col("close").shift(5)).log(),
        "_log_variance_60": standard_deviation(pl.col("_log_return"), 60) ** 2,
        "_path_20": mean_size((pl.col("close") - pl.col("_previous_close")).abs(), 20) * 20,
    }
    return {**means, **sigmas, **sizes, **products, **covariances, **others}


def microstructure() -> list[Feature]:
    """All microstructure features."""
    return [
        _imbalance(),
        *_imbalance_means(),
        _weighted_body(30),
        _spread(),
        _efficiency(20),
        _autocorrelation(60),
        _variance_ratio(5, 60),
        _zero_share(60),
    ]


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


def _efficiency(window: int) -> Feature:
    close, path = pl.col("close"), pl.col(f"_path_{window}")
    moved = (close - close.shift(window)).abs() / path
    return Feature(
        name=f"efficiency_ratio_{window}",
        group=_GROUP,
        lookback=window + 1,
        expression=pl.when(path > 0).then(moved).when(path == 0).then(0.0),
        formula=f"|C - C[-{window}]| / sum of |C - C[-1]| over {window} bars; 0 where nothing moved",
        source="Kaufman 1995",
        unit="share, 0 to 1",
    )


def _autocorrelation(window: int) -> Feature:
    sigma, size = pl.col(f"_return_sigma_{window}"), pl.col(f"_return_size_{window}")
    scale, flat = sigma * sigma.shift(1), TINY * size * size.shift(1)
    covariance = pl.col(f"_return_covariance_{window}") * (window / (window - 1))
    return Feature(
        name=f"return_autocorrelation_{window}",
        group=_GROUP,
        lookback=window + 2,
        expression=pl.when(scale > flat).then(covariance / scale).when(scale <= flat).then(0.0),
        formula=f"correlation of C / C[-1] - 1 with the one a bar before over {window} pairs; 0 where flat",
        source="Campbell, Lo and MacKinlay 1997",
        unit="correlation",
    )


def _variance_ratio(q: int, window: int) -> Feature:
    """Overlapping q-bar returns inside the window, and the unbiased variances of the paper."""
    one, long = pl.col("_log_return"), pl.col(f"_log_return_{q}")
    count = window - q + 1
    scale = q * count * (1 - q / window)
    drift = mean(long, count) - q * mean(one, window)
    spread = (count - 1) * standard_deviation(long, count) ** 2 + count * drift**2
    single = pl.col(f"_log_variance_{window}")
    flat = TINY * pl.col(f"_return_size_{window}") ** 2
    return Feature(
        name=f"variance_ratio_{q}_{window}",
        group=_GROUP,
        lookback=window + 1,
        expression=pl.when(single > flat).then(spread / (scale * single)).when(single <= flat).then(1.0),
        formula=f"variance of overlapping {q}-bar log returns / ({q} * variance of one-bar log returns), "
        f"both unbiased, over {window} bars; 1 where flat",
        source="Lo and MacKinlay 1988",
        unit="ratio",
    )


def _zero_share(window: int) -> Feature:
    return Feature(
        name=f"zero_return_share_{window}",
        group=_GROUP,
        lookback=window + 1,
        expression=mean((pl.col("close") == pl.col("_previous_close")).cast(pl.Float64), window),
        formula=f"share of bars with C = C[-1] over {window} bars",
        source="Lesmond, Ogden and Trzcinka 1999",
        unit="share, 0 to 1",
    )
