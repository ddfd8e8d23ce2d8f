"""Null policies: a feature can be null after its lookback if, and only if, its words say so."""

from __future__ import annotations

from functools import cache

import polars as pl
import pytest

from marketray.features.catalog import build_catalog
from marketray.features.definition import NEWS, Feature
from marketray.features.kernel import compute
from marketray.sessions import trading_sessions
from marketray.settings import FeatureSettings
from tests.features.market import rough_bars, sessions_of
from tests.features.newsfeed import articles

PRICES = ("open", "high", "low", "close")
STILL = pl.int_range(pl.len()).is_between(1_600, 1_750)
BARS = rough_bars(3_300, seed=41).with_columns(
    pl.when(STILL).then(4_000.0).otherwise(p).alias(p) for p in PRICES
)
"""Missing minutes, a hole, flat and silent stretches, bars without volume, quotes or sizes."""

INPUTS = (*BARS.columns, NEWS)
CATALOGS = {
    kind: build_catalog(FeatureSettings(catalog=kind), INPUTS) for kind in ("standard", "seed-compatible")
}


@cache
def nulls(kind: str) -> dict[str, int]:
    """Nulls after each feature's lookback: in sessions with much news; mostly outside them, with little."""
    catalog, found = CATALOGS[kind], dict.fromkeys(CATALOGS[kind].names, 0)
    first, last = BARS["time"][0], BARS["time"][-1]
    news = articles(400, seed=5)
    late = news.filter(pl.col("available_at") > BARS["time"][1_500])[::100]
    markets = (
        (sessions_of(BARS["time"]), news),
        (trading_sessions("XNYS", first.date(), last.date()), late),
    )
    for sessions, told in markets:
        rows = compute(catalog, BARS, sessions, told)
        for f in catalog.features:
            found[f.name] += rows[f.name].slice(f.lookback - 1).null_count()
    return found


def says_null(feature: Feature) -> bool:
    return any(clause.startswith("null ") for clause in feature.words[1].split("; "))


@pytest.mark.parametrize("kind", CATALOGS)
def test_a_feature_whose_words_do_not_say_null_always_has_a_value(kind: str) -> None:
    silent = {f.name for f in CATALOGS[kind].features if not says_null(f)}
    assert {name: n for name, n in nulls(kind).items() if n and name in silent} == {}


@pytest.mark.parametrize("kind", CATALOGS)
def test_a_feature_whose_words_say_null_is_null_somewhere(kind: str) -> None:
    told = {f.name for f in CATALOGS[kind].features if says_null(f)}
    assert sorted(name for name in told if not nulls(kind)[name]) == []


def test_words_hold_the_formula_s_clauses_the_policy_and_the_inputs() -> None:
    feature = Feature("x", "g", 1, pl.col("volume"), "a / b; c = 1; 0 where b is 0", "-", inputs=("volume",))
    assert feature.words == ("a / b; c = 1", "0 where b is 0; null where a bar lacks its inputs")
    of_news = Feature("y", "g", 1, pl.lit(1.0), "a", "-", inputs=(NEWS,), null_policy="null at times")
    assert of_news.words == ("a", "null at times")
    flag = Feature("z", "g", 1, pl.lit(1.0), "a", "-", inputs=("bid",), null_policy="0 where x is null")
    assert flag.words == ("a", "0 where x is null")
