"""Law 1: a feature at decision_at uses only bars that end at or before decision_at."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from marketray.features.audit import look_ahead
from marketray.features.catalog import build_catalog
from marketray.features.definition import KERNEL_COLUMNS
from marketray.features.kernel import compute, latest
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, make_bars, sessions_of
from tests.features.offenders import HONEST, LOOK_AHEAD, planted

BARS = make_bars(3_600, seed=21)
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(), COLUMNS)
CLOCK = {"time", *KERNEL_COLUMNS}
CUTS = (1_441, 1_799, 1_802, 2_500, 3_333)  # among them the minutes around the planted spike


def perturbed(first: int, seed: int) -> pl.DataFrame:
    """The bars with every value from row `first` on made another one, as bars may be."""
    rng = np.random.default_rng(seed)
    factor = pl.Series(np.where(np.arange(len(BARS)) >= first, np.exp(rng.normal(0, 0.2, len(BARS))), 1.0))
    return BARS.with_columns(pl.col(name) * factor for name in COLUMNS[1:])


def other_shape(bars: pl.DataFrame, last: int) -> pl.DataFrame:
    """The bars up to row `last`, where that one opens and closes elsewhere in its range, at
    other quotes and volume.
    """
    bars = bars.head(last + 1)
    low, high, close = (bars[name][last] for name in ("low", "high", "close"))
    first, second, half = np.random.default_rng(last).uniform(0.0, 1.0, 3)
    changed = bars.tail(1).with_columns(
        open=pl.lit(low + first * (high - low)),
        close=pl.lit(low + second * (high - low)),
        volume=pl.lit(2_000 * half),
        bid=pl.lit(close * (1 - 1e-4 * half)),
        ask=pl.lit(close * (1 + 1e-4)),
    )
    return pl.concat([bars.head(last), changed])


def behind(name: str) -> set[str]:
    """Bar and kernel columns that a feature is made of."""
    made = {e.meta.output_name(): e for layer in CATALOG.layers for e in layer}
    if name not in made:
        return {name}
    return set().union(*(behind(root) for root in made[name].meta.root_names()))


def test_bars_that_end_after_the_decision_change_nothing() -> None:
    assert look_ahead(CATALOG, BARS, SESSIONS, cuts=CUTS, seed=1) == []


def test_the_decision_is_the_end_of_the_bar() -> None:
    rows = compute(CATALOG, BARS, SESSIONS)
    assert (rows["decision_at"] - rows["time"]).unique().to_list() == [timedelta(minutes=1)]
    five = compute(build_catalog(FeatureSettings(), COLUMNS, interval_minutes=5), BARS, SESSIONS)
    assert (five["decision_at"] - five["time"]).unique().to_list() == [timedelta(minutes=5)]


def test_every_feature_of_values_hears_the_bar_that_just_ended() -> None:
    """Flags and ranks answer to few bars, so many are tried."""
    heard: set[str] = set()
    for row in range(len(BARS) - 40, len(BARS)):
        given = BARS.head(row + 1)
        rows = [latest(CATALOG, bars, SESSIONS) for bars in (given, other_shape(perturbed(row, row), row))]
        heard |= {n for n in CATALOG.names if not rows[0][n].equals(rows[1][n])}
    clock = {f.name for f in CATALOG.features if behind(f.name) <= CLOCK}
    earlier = {"previous_body", "session_gap", *(f"return_1_lag_{k}" for k in range(1, 60))}
    # one bar seldom moves these over their bound, or closes where the one before did
    slow = {"gap_filled", "is_trending", "is_uptrend", "volatility_low_720", "zero_return_share_60"}
    assert set(CATALOG.names) - heard <= clock | earlier | slow
    assert not heard & (clock | earlier)


def test_every_planted_look_ahead_is_caught_and_nobody_else() -> None:
    found = look_ahead(planted(CATALOG, LOOK_AHEAD, HONEST), BARS, SESSIONS)
    assert {f.feature for f in found} == set(LOOK_AHEAD)
