"""Law 1, known time, for news features: an article counts only for decisions after its availability."""

from __future__ import annotations

from datetime import timedelta

import hypothesis.strategies as st
import polars as pl
from hypothesis import given, settings
from polars.testing import assert_frame_equal

from marketray.features.kernel import compute
from marketray.sentiment.signals import NEWS_SCHEMA
from tests.features.newsfeed import BARS, CATALOG, INTERVAL, NEWSFEED, ROWS, SESSIONS


@settings(max_examples=10)
@given(first=st.integers(100, 399), later=st.integers(0, 2))
def test_rows_before_the_first_article_are_null_whatever_comes_later(first, later):
    """Which articles follow, or that any do, is not known there; the first one is known after it."""
    news = NEWSFEED.slice(first)[:: 1 + later]
    rows = compute(CATALOG, BARS, SESSIONS, news)
    before = rows["decision_at"] <= news["available_at"][0]
    assert rows.filter(before).select(CATALOG.names).null_count().row(0) == (before.sum(),) * len(
        CATALOG.names
    )
    counts = rows.filter(~before)
    assert (
        counts.select(pl.col("^news_article_count_.*$", "^news_trading_signal_.*$")).null_count().row(0)
        == (0,) * 6
    )


@settings(max_examples=25)
@given(which=st.integers(0, 399), seconds=st.integers(1, 4_000))
def test_only_rows_that_know_an_article_change_when_it_comes_later(which, seconds):
    shift = timedelta(seconds=seconds)
    late = pl.int_range(pl.len()) == which
    moved = NEWSFEED.with_columns(
        pl.when(late).then(pl.col("available_at") + shift).otherwise("available_at").alias("available_at")
    ).sort("available_at", maintain_order=True)
    rows = compute(CATALOG, BARS, SESSIONS, moved)
    before = ROWS["decision_at"] <= NEWSFEED["available_at"][which]
    assert_frame_equal(rows.filter(before), ROWS.filter(before), check_exact=True)


def test_an_article_one_second_after_the_decision_is_not_known():
    decision = BARS["time"][2_000] + INTERVAL
    two = pl.DataFrame(
        {
            "available_at": [decision - timedelta(hours=2), decision - timedelta(seconds=1)],
            "positive": [0.9, 0.9],
            "negative": [0.05, 0.05],
            "neutral": [0.05, 0.05],
        },
        schema=NEWS_SCHEMA,
    )
    at = pl.col("decision_at") == decision
    for shift, known in ((0, 1.0), (1, 0.0), (2, 0.0)):  # one second before, at, and after the decision
        news = two.with_columns(pl.col("available_at") + timedelta(seconds=shift))
        assert compute(CATALOG, BARS, SESSIONS, news).filter(at)["news_article_count_15m"].item() == known
