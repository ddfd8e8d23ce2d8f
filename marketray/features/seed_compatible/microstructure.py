"""The microstructure set: 18 features of the bar's range and of its volume."""

from __future__ import annotations

from functools import partial

import polars as pl

from marketray.features.definition import Feature
from marketray.features.windows import deviation, mean, standard_deviation

__all__ = ["seed_microstructure"]

_make = partial(Feature, group="seed_microstructure", source="seed-compatible")
_with_volume = partial(_make, inputs=("volume",))
_UNTRADED = "null where nothing was traded over 20 bars"


def seed_microstructure() -> list[Feature]:
    """All 18 microstructure features."""
    return [*_ranges(), *_volume(), *_impact(), *_flow(), *_average_price(), *_changes()]


def _ranges() -> list[Feature]:
    span = pl.col("high") - pl.col("low")
    share = span / pl.col("close")
    single = partial(_make, lookback=1, exact=True)
    return [
        single(name="hl_range", expression=span, formula="H - L", unit="price"),
        single(name="hl_range_pct", expression=share, formula="(H - L) / C"),
        _make(
            name="hl_range_ma20",
            lookback=20,
            expression=mean(pl.col("hl_range"), 20),
            formula="SMA20 of hl_range",
            unit="price",
        ),
        single(name="spread_proxy", expression=span, formula="H - L, the same as hl_range", unit="price"),
        single(name="spread_pct", expression=share, formula="(H - L) / C, the same as hl_range_pct"),
    ]


def _volume() -> list[Feature]:
    traded = pl.col("volume")
    averages = [
        _with_volume(
            name=f"volume_ma{n}",
            lookback=n,
            expression=pl.col(f"_volume_mean_{n}"),
            formula=f"SMA{n} of V",
            unit="volume",
        )
        for n in (20, 50)
    ]
    return [
        *averages,
        _with_volume(
            name="volume_ratio",
            lookback=20,
            expression=traded / pl.col("_volume_mean_20"),
            formula="V / SMA20 of V",
            unit="ratio",
            null_policy=_UNTRADED,
        ),
        _with_volume(
            name="volume_zscore",
            lookback=20,
            expression=deviation(traded, 20) / standard_deviation(traded, 20),
            formula="(V - SMA20 of V) / sd20 of V",
            unit="standard deviations",
            null_policy="null where sd20 of V is 0",
        ),
    ]


def _impact() -> list[Feature]:
    change = pl.col("close") - pl.col("_previous_close")
    return _with_mean("price_impact", change.abs(), "|C - C[-1]| / (V + 1)", "price per volume")


def _flow() -> list[Feature]:
    high, low, body = pl.col("high"), pl.col("low"), pl.col("close") - pl.col("open")
    imbalance = _make(
        name="order_flow_imbalance",
        lookback=1,
        expression=pl.when(high > low).then(body / (high - low)).when(high == low).then(0.0),
        formula="(C - O) / (H - L)",
        unit="share of the range, -1 to 1",
        exact=True,
        null_policy="0 where H = L",
    )
    moved = pl.col("_return_1").abs()
    return [imbalance, *_with_mean("illiquidity", moved, "|C / C[-1] - 1| / (V + 1)", "return per volume")]


def _with_mean(name: str, move: pl.Expr, formula: str, unit: str) -> list[Feature]:
    """A move per unit of volume, and its mean over 20 bars."""
    return [
        _with_volume(
            name=name,
            lookback=2,
            expression=move / (pl.col("volume") + 1),
            formula=formula,
            unit=unit,
            exact=True,
        ),
        _with_volume(
            name=f"{name}_ma20",
            lookback=21,
            expression=mean(pl.col(name), 20),
            formula=f"SMA20 of {name}",
            unit=unit,
        ),
    ]


def _average_price() -> list[Feature]:
    make = partial(_with_volume, lookback=20, null_policy=_UNTRADED)
    return [
        make(
            name="vwap",
            expression=pl.col("_vwap_20"),
            formula="sum of C V / sum of V over 20 bars",
            unit="price",
        ),
        make(
            name="close_vwap_ratio",
            expression=pl.col("close") / pl.col("_vwap_20"),
            formula="C / vwap",
            unit="ratio",
        ),
    ]


def _changes() -> list[Feature]:
    traded = pl.col("volume")
    make = partial(_with_volume, unit="volume", exact=True)
    return [
        make(
            name="volume_velocity",
            lookback=2,
            expression=traded - traded.shift(1),
            formula="V - V[-1]",
        ),
        make(
            name="volume_acceleration",
            lookback=3,
            expression=pl.col("volume_velocity") - pl.col("volume_velocity").shift(1),
            formula="volume_velocity - volume_velocity[-1]",
        ),
    ]
