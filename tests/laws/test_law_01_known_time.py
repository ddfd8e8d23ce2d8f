"""Law 1: a feature at decision_at uses only bars that end at or before decision_at."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from marketray.features.audit import look_ahead
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.settings import FeatureSettings
from tests.features.market import COLUMNS, make_bars, sessions_of
from tests.features.offenders import HONEST, LOOK_AHEAD, planted

BARS = make_bars(3_600, seed=21)
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(), COLUMNS)
CUTS = (1_441, 1_799, 1_802, 2_500, 3_333)  # among them the minutes around the planted spike


def perturbed(first: int, seed: int) -> pl.DataFrame:
    """The bars with every value from row `first` on made another one, as bars may be."""
    rng = np.random.default_rng(seed)
    factor = pl.Series(np.where(np.arange(len(BARS)) >= first, np.exp(rng.normal(0, 0.2, len(BARS))), 1.0))
    return BARS.with_columns(pl.col(name) * factor for name in COLUMNS[1:])


def test_bars_that_end_after_the_decision_change_nothing() -> None:
    assert look_ahead(CATALOG, BARS, SESSIONS, cuts=CUTS, seed=1) == []


def test_the_decision_is_the_end_of_the_bar() -> None:
    rows = compute(CATALOG, BARS, SESSIONS)
    assert (rows["decision_at"] - rows["time"]).unique().to_list() == [timedelta(minutes=1)]
    five = compute(build_catalog(FeatureSettings(), COLUMNS, interval_minutes=5), BARS, SESSIONS)
    assert (five["decision_at"] - five["time"]).unique().to_list() == [timedelta(minutes=5)]


def test_every_price_feature_hears_the_bar_that_just_ended() -> None:
    last = compute(CATALOG, BARS, SESSIONS).tail(1)
    other = compute(CATALOG, perturbed(len(BARS) - 1, 5), SESSIONS).tail(1)
    deaf = {n for n in CATALOG.names if last[n].equals(other[n])}
    clock = {*CATALOG.group("session")} - {"return_since_open", "vwap_distance_session"}
    scale_free = {"order_flow_imbalance", "spread_relative", "range_1", "weighted_body_30"}
    means = {f"order_flow_mean_{n}" for n in (5, 10, 30, 60)} | {f"return_1_lag_{k}" for k in range(1, 60)}
    assert deaf <= clock | scale_free | means


def test_every_planted_look_ahead_is_caught_and_nobody_else() -> None:
    found = look_ahead(planted(CATALOG, LOOK_AHEAD, HONEST), BARS, SESSIONS)
    assert {f.feature for f in found} == set(LOOK_AHEAD)
