"""The seed-compatible catalog: earlier systems' column sets by their own formulas, made causal.

Names, price levels, percents and factors of sqrt(252) on bars of any length are theirs. What differs: no
bar is invented to fill gaps, so windows count bars that exist; no statistic of the whole sample is used,
so a median is that of the last 720 bars; no label stands among the inputs; and an undefined value is
null instead of the last one carried on.
"""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.returns import lags
from marketray.features.groups.shared import shared_columns
from marketray.features.seed_compatible.advanced import seed_advanced
from marketray.features.seed_compatible.base import seed_base
from marketray.features.seed_compatible.daily import seed_daily
from marketray.features.seed_compatible.hourly import seed_hourly
from marketray.features.seed_compatible.microstructure import seed_microstructure
from marketray.features.seed_compatible.shared import seed_shared_columns
from marketray.features.seed_compatible.technical import seed_technical
from marketray.features.seed_compatible.volatility import seed_volatility

__all__ = ["seed_columns", "seed_features"]


def seed_features(interval_minutes: int) -> list[Feature]:
    """Every feature of the seed-compatible catalog, in catalog order, for bars of `interval_minutes`."""
    return [
        *seed_technical(),
        *seed_microstructure(),
        *seed_volatility(),
        *seed_base(interval_minutes),
        *seed_advanced(),
        *seed_hourly(),
        *seed_daily(),
        *lags(),
    ]


def seed_columns() -> dict[str, pl.Expr]:
    """Columns shared by the seed-compatible features."""
    return {**shared_columns(), **seed_shared_columns()}
