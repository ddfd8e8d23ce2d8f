"""The base inputs that the market set keeps as features: 7 columns."""

from __future__ import annotations

from functools import partial

import polars as pl

from marketray.features.definition import Feature

__all__ = ["seed_base"]

_make = partial(Feature, group="seed_base", source="seed-compatible", exact=True)
_PRICES = (("open", "O"), ("high", "H"), ("low", "L"))


def seed_base(interval_minutes: int) -> list[Feature]:
    """All 7 base inputs for bars of `interval_minutes`; the close is no feature there."""
    return [
        *(
            _make(name=name, lookback=1, expression=pl.col(name), formula=letter, unit="price")
            for name, letter in _PRICES
        ),
        _make(
            name="volume",
            lookback=1,
            expression=pl.col("volume"),
            formula="V",
            unit="volume",
            inputs=("volume",),
        ),
        _make(
            name="is_backfilled",
            lookback=1,
            expression=pl.lit(0.0),
            formula="1 for a bar that was made up to fill a gap: always 0, since none is",
            unit="flag",
        ),
        *(_original_bars(minutes, interval_minutes) for minutes in (60, 360)),
    ]


def _original_bars(minutes: int, interval_minutes: int) -> Feature:
    count = pl.len().rolling("time", period=f"{minutes - 30}m", offset=f"-{minutes}m", closed="left")
    return _make(
        name=f"has_original_prev_30_to_{minutes}min",
        lookback=minutes // interval_minutes + 1,
        expression=(count > 0).cast(pl.Float64),
        formula=f"1 where a bar opened in [time - {minutes} min, time - 30 min)",
        unit="flag",
    )
