"""News features in the kernel, in a live state and under the audits."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from marketray.bars import COLUMNS
from marketray.errors import DataError, SettingsError
from marketray.features import kernel
from marketray.features.audit import look_ahead
from marketray.features.catalog import build_catalog
from marketray.features.definition import NEWS
from marketray.features.kernel import compute, latest
from marketray.features.online import OnlineState
from marketray.features.warmup import warm_up
from marketray.sentiment.signals import news_columns
from marketray.settings import FeatureSettings
from tests.features.market import MARKET
from tests.features.newsfeed import BARS, CATALOG, INTERVAL, NEWSFEED, ROWS, SESSIONS


def test_the_catalog_needs_news_and_says_so_where_there_are_none(caplog):
    with caplog.at_level("INFO"):
        without = build_catalog(FeatureSettings(), COLUMNS)
    assert set(CATALOG.names) <= set(without.dropped)
    assert "news_avg_sentiment_60m" in caplog.text
    assert without.news_columns == ()
    assert NEWS not in CATALOG.columns
    with pytest.raises(DataError, match="the catalog has news features; got no scored articles"):
        compute(CATALOG, BARS, SESSIONS)


def test_signals_follow_their_formulas():
    """Row by row from the articles of the last hour."""
    decisions = ROWS["decision_at"]
    for i in range(0, len(ROWS), 97):
        t, row = decisions[i], ROWS.row(i, named=True)
        inside = NEWSFEED.filter(
            (pl.col("available_at") < t) & (pl.col("available_at") >= t - timedelta(hours=1))
        )
        assert row["news_article_count_60m"] == len(inside)
        if inside.is_empty():
            assert row["news_avg_sentiment_60m"] is None
            assert row["news_trading_signal_60m"] == 0
            continue
        p = inside.select("positive", "negative", "neutral").to_numpy()
        mean, quality = (p[:, 0] - p[:, 1]).mean(), p.max(axis=1).mean()
        assert row["news_avg_sentiment_60m"] == pytest.approx(mean, abs=1e-11)
        assert row["news_quality_score_60m"] == pytest.approx(quality, abs=1e-11)
        assert row["news_signal_strength_60m"] == pytest.approx(abs(mean) * quality, abs=1e-11)
        expected = np.sign(mean) if abs(mean) > 0.2 and abs(mean) * quality > 0.3 else 0.0
        assert row["news_trading_signal_60m"] == expected
    assert ROWS["news_trading_signal_60m"].n_unique() == 3


def test_an_impulse_is_the_fading_sum_in_units_of_volatility():
    catalog = build_catalog(FeatureSettings(groups=("news", "volatility")), (*COLUMNS, NEWS))
    rows = compute(catalog, BARS, SESSIONS, NEWSFEED)
    times = NEWSFEED["available_at"].to_physical().to_numpy()
    tone = (NEWSFEED["positive"] - NEWSFEED["negative"]).to_numpy()
    assert rows["news_impulse_15m"][:60].null_count() == 60
    for i in range(60, len(rows), 131):
        age = (rows["decision_at"].to_physical()[i] - times) / 60e6  # minutes
        used = (age > 0) & (age <= 150)
        expected = (tone[used] * 0.5 ** (age[used] / 15)).sum() * rows["realized_volatility_60"][i]
        assert rows["news_impulse_15m"][i] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_the_thresholds_of_the_trading_signal_are_settings():
    eager = build_catalog(
        FeatureSettings(groups=("news",), trading_sentiment=0.0, trading_strength=0.0), (*COLUMNS, NEWS)
    )
    assert eager.hash != CATALOG.hash
    rows = compute(eager, BARS, SESSIONS, NEWSFEED)
    some = rows["news_article_count_24h"] > 0
    assert (rows["news_trading_signal_24h"].filter(some) != 0).all()


def test_a_live_state_gives_the_rows_of_the_batch():
    start = 2_400
    known = NEWSFEED["available_at"] < BARS["time"][start]
    state = OnlineState.from_bars(
        CATALOG, MARKET, BARS.head(start), news=NEWSFEED.filter(known), from_start=True
    )
    coming = NEWSFEED.filter(~known)
    for i in range(start, start + 150):
        bar = BARS.row(i, named=True)
        fresh = coming.filter(pl.col("available_at") < bar["time"] + INTERVAL)
        coming = coming.filter(pl.col("available_at") >= bar["time"] + INTERVAL)
        if len(fresh):
            assert state.add_news(fresh.reverse()) == 0
        row = state.append(bar, None)
        assert_frame_equal(row.frame(), ROWS.slice(i, 1), abs_tol=1e-12, rel_tol=1e-11)
    last = latest(CATALOG, BARS.head(start + 150), SESSIONS, news=NEWSFEED)
    assert_frame_equal(row.frame(), last, abs_tol=1e-12, rel_tol=1e-11)


def test_late_articles_are_counted_and_known_to_the_next_rows():
    state = OnlineState.from_bars(CATALOG, MARKET, BARS.head(2_000), news=NEWSFEED.clear(), from_start=True)
    assert state.add_news(NEWSFEED) == int((NEWSFEED["available_at"] < BARS["time"][1_999] + INTERVAL).sum())
    row = state.append(BARS.row(2_000, named=True), None)
    assert_frame_equal(row.frame(), ROWS.slice(2_000, 1), abs_tol=1e-12, rel_tol=1e-11)
    with pytest.raises(DataError, match="neutral is None; required"):
        state.add_news(NEWSFEED.drop("neutral"))


def test_the_audits_find_nothing_in_the_news_features():
    assert look_ahead(CATALOG, BARS, SESSIONS, news=NEWSFEED, cuts=[5, 700, 1_500, 2_990]) == []
    assert all(m.enough for m in warm_up(CATALOG, BARS, SESSIONS, news=NEWSFEED))


def test_news_stamped_at_the_start_of_its_hour_is_found_by_the_audit(monkeypatch):
    """A signal of hourly windows stamped with the window's start knows up to an hour of future news."""

    def leaky(decision_us, news, wanted):
        hour = 3_600_000_000
        return news_columns(decision_us // hour * hour + hour, news, wanted)

    monkeypatch.setattr(kernel, "news_columns", leaky)
    found = look_ahead(CATALOG, BARS, SESSIONS, news=NEWSFEED, cuts=[1_000, 1_700, 2_500])
    guilty = {f.feature for f in found}
    assert {"news_avg_sentiment_60m", "news_article_count_60m", "news_minutes_since"} <= guilty
    assert all(f.bars_ahead >= 1 and f.when != ("repeated",) for f in found)


def test_a_user_feature_of_news_declares_it(tmp_path):
    text = (
        "import polars as pl\nfrom marketray.features.user import feature\n"
        "@feature(lookback=31, inputs=[{inputs}])\n"
        "def sentiment_momentum():\n"
        "    return pl.col('news_avg_sentiment_24h') - pl.col('news_avg_sentiment_24h').shift(30)\n"
    )
    file = {"path": "mine.py", "text": text.format(inputs='"news"')}
    mine = build_catalog(FeatureSettings(files=(file,), groups=("user",)), (*COLUMNS, NEWS))
    assert look_ahead(mine, BARS, SESSIONS, news=NEWSFEED, cuts=[100, 2_000]) == []
    with pytest.raises(SettingsError, match=r"needs \['news'\]; got inputs=\[\]"):
        build_catalog(FeatureSettings(files=({**file, "text": text.format(inputs="")},)), (*COLUMNS, NEWS))
