"""Law 3, one definition, for news features: a live state knows what the batch knows, however long it runs."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from marketray.features.kernel import compute
from marketray.features.online import OnlineState
from tests.features.market import MARKET, sessions_of
from tests.features.newsfeed import BARS, CATALOG, NEWSFEED


def test_a_live_state_never_forgets_since_when_there_is_news():
    """The batch has 0 articles, not none known, long after the only two; so has a state that went on."""
    bars = BARS.head(200).with_columns(pl.col("time") + pl.int_range(pl.len()) // 3 * timedelta(days=2))
    only = NEWSFEED.head(2).with_columns(available_at=bars["time"].gather([60, 61]))
    sessions = sessions_of(bars["time"])
    batch = compute(CATALOG, bars, sessions, only)
    assert batch["news_article_count_24h"].null_count() == 60
    state = OnlineState.from_bars(CATALOG, MARKET, bars.head(50), from_start=True, outside_sessions="keep")
    assert state.row is not None
    assert np.isnan(state.row.values).all()
    for i in range(50, 200):
        if i == 60:
            state.add_news(only)
        row = state.append(bars.row(i, named=True), None)
        if i % 10 == 0:
            assert_frame_equal(row.frame(), batch.slice(i, 1), abs_tol=1e-12, rel_tol=1e-11)
    assert row.frame()["news_article_count_24h"].item() == 0
