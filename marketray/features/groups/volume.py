"""Volume against its own recent past and against the price; absent where the data have no volume."""

from __future__ import annotations

import numpy as np
import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.shared import TINY
from marketray.features.windows import deviation, mean, mean_size, standard_deviation, weighted_sum

__all__ = ["volume", "volume_columns"]

_GROUP = "volume"
_MEANS = (5, 20, 50, 60)


def volume_columns() -> dict[str, pl.Expr]:
    """Shared columns: means and deviations of the volume, and the volume signed by the tick rule."""
    traded = pl.col("volume")
    means = {f"_volume_mean_{n}": mean_size(traded, n) for n in _MEANS}
    sigmas = {f"_volume_sigma_{n}": standard_deviation(traded, n) for n in (20, 60)}
    rise = pl.col("_typical").diff()
    flows = {
        "_flow_in_14": mean_size(pl.when(rise > 0).then(pl.col("_traded")).otherwise(rise * 0.0), 14),
        "_flow_out_14": mean_size(pl.when(rise < 0).then(pl.col("_traded")).otherwise(rise * 0.0), 14),
    }
    signed = (pl.col("close") - pl.col("_previous_close")).sign() * traded
    return {**means, **sigmas, **flows, "_signed_volume": signed, "_log_volume": traded.log()}


def volume() -> list[Feature]:
    """All volume features."""
    return [
        *(_ratio(n) for n in (20, 50)),
        _short_ratio(),
        *(_zscore(n) for n in (20, 60)),
        _abnormal(),
        *_changes(),
        *(_vwap_distance(n) for n in (20, 60)),
        *_signed(),
        _money_flow(),
        _correlation(20),
    ]


def _feature(
    name: str, lookback: int, value: pl.Expr, formula: str, source: str, unit: str = "fraction"
) -> Feature:
    return Feature(name, _GROUP, lookback, value, formula, source, unit, inputs=("volume",))


def _ratio(window: int) -> Feature:
    recent = pl.col(f"_volume_mean_{window}")
    return _feature(
        f"volume_ratio_{window}",
        window,
        pl.when(recent > 0).then(pl.col("volume") / recent),
        f"V / mean of V over {window} bars; null where nothing was traded",
        "relative volume",
        "ratio",
    )


def _short_ratio() -> Feature:
    short, long = pl.col("_volume_mean_5"), pl.col("_volume_mean_20")
    return _feature(
        "volume_ratio_5_20",
        20,
        pl.when(long > 0).then(short / long),
        "mean of V over 5 bars / mean of V over 20 bars; null where nothing was traded",
        "relative volume",
        "ratio",
    )


def _zscore(window: int) -> Feature:
    sigma = pl.col(f"_volume_sigma_{window}")
    apart = deviation(pl.col("volume"), window)
    return _feature(
        f"volume_zscore_{window}",
        window,
        pl.when(sigma > 0).then(apart / sigma).when(sigma == 0).then(0.0),
        f"(V - mean of V) / sd of V over {window} bars; 0 where sd is 0",
        "standard score",
        "standard deviations",
    )


def _abnormal() -> Feature:
    """A hair above 2, so that a score of exactly 2 is on the same side however it is rounded."""
    return _feature(
        "abnormal_volume",
        20,
        (pl.col("volume_zscore_20") > 2 * (1 + TINY)).cast(pl.Float64),
        "1 where volume_zscore_20 > 2, else 0",
        "standard score",
        "0 or 1",
    )


def _changes() -> list[Feature]:
    change = pl.col("_log_volume").diff()
    bare = "null where a bar has no trades"
    source = "log change of volume"
    return [
        _feature("volume_change_1", 2, change, f"ln(V / V[-1]); {bare}", source, "log ratio"),
        _feature(
            "volume_acceleration",
            3,
            pl.col("volume_change_1").diff(),
            f"ln(V / V[-1]) - ln(V[-1] / V[-2]); {bare}",
            source,
            "log ratio",
        ),
    ]


def _vwap_distance(window: int) -> Feature:
    recent = pl.col(f"_volume_mean_{window}")
    average = mean(pl.col("_traded"), window) / recent
    return _feature(
        f"vwap_distance_{window}",
        window,
        pl.when(recent > 0).then(pl.col("close") / average - 1),
        f"C / VWAP - 1, VWAP = sum of V (H + L + C) / 3 over sum of V, {window} bars; null without trades",
        "volume-weighted average price",
    )


def _signed() -> list[Feature]:
    recent, signed = pl.col("_volume_mean_20"), pl.col("_signed_volume")
    steps = np.arange(19, 0, -1.0)
    slope = weighted_sum(signed, steps * (20 - steps) / (2 * 665))
    source = "on-balance volume, Granville 1963"
    return [
        _feature(
            "signed_volume_share_20",
            21,
            pl.when(recent > 0).then(mean(signed, 20) / recent),
            "sum of sign(C - C[-1]) V / sum of V over 20 bars; null without trades",
            source,
            "share, -1 to 1",
        ),
        _feature(
            "obv_slope_20",
            20,
            pl.when(recent > 0).then(slope / recent),
            "least-squares slope of on-balance volume over 20 bars / mean of V; null without trades",
            source,
            "mean volumes per bar",
        ),
    ]


def _money_flow() -> Feature:
    flow, both = pl.col("_flow_in_14"), pl.col("_flow_in_14") + pl.col("_flow_out_14")
    return _feature(
        "mfi_14",
        15,
        pl.when(both > 0).then(100 * flow / both).when(both == 0).then(50.0),
        "100 P / (P + N), sums over 14 bars of V (H + L + C) / 3 where that price rose and fell; "
        "50 where nothing flowed",
        "Quong and Soudack 1989; TA-Lib MFI(14)",
        "index 0-100",
    )


def _correlation(window: int) -> Feature:
    change, traded = pl.col("_return_1"), pl.col("volume")
    average, size = pl.col(f"_volume_mean_{window}"), pl.col(f"_return_size_{window}")
    sigmas = pl.col(f"_return_sigma_{window}") * pl.col(f"_volume_sigma_{window}")
    flat = TINY * average * size
    both = mean(traded * change, window) - average * pl.col(f"_return_mean_{window}")
    return _feature(
        f"volume_return_correlation_{window}",
        window + 1,
        pl.when(sigmas > flat).then(both * (window / (window - 1)) / sigmas).when(sigmas <= flat).then(0.0),
        f"correlation of V and C / C[-1] - 1 over {window} bars; 0 where one of them is flat",
        "Karpoff 1987",
        "correlation",
    )
