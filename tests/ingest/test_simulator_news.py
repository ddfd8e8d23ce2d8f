"""The simulated articles: what they say, when they are known, and how they move the price."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from marketray.ingest.articles import available_at_expr
from marketray.ingest.sources.simulator_text import write_articles
from marketray.settings import SimulatorSource
from tests.ingest.simulated import CMES, MINUTE_US, Simulated, collect

# words of the Loughran-McDonald kind, chosen without a look at the grammar's own tables
POSITIVE = {
    "beat", "strong", "surge", "upbeat", "raise", "raised", "record", "gain", "gained", "improve", "improved",
    "upgrades", "robust", "better", "boosting", "positive", "rally", "jump", "climb", "growth", "praised",
    "welcomed", "win",
}  # fmt: skip
NEGATIVE = {
    "miss", "weak", "plunge", "disappointing", "disappointed", "cut", "losses", "widening", "fall", "fell",
    "shrink", "downgrades", "declining", "decline", "worse", "hurting", "lawsuits", "negative", "slump",
    "tumble", "slide", "warned", "poor", "criticised", "worsened",
}  # fmt: skip


def tone(text: str) -> int:
    words = re.findall(r"[a-z]+", text.lower())
    return int(np.sign(sum(w in POSITIVE for w in words) - sum(w in NEGATIVE for w in words)))


@pytest.fixture(scope="module")
def data() -> Simulated:
    return collect(SimulatorSource(bars=200_000, effect="news", news_r2=0.05, seed=4), CMES)


def test_title_and_body_have_the_sign_of_the_sentiment() -> None:
    sentiment = np.random.default_rng(0).integers(-1, 2, 5_000).astype(np.int8)
    titles, bodies = write_articles(np.random.default_rng(1), sentiment)
    assert [tone(t) for t in titles] == sentiment.tolist()
    assert [tone(b) for b in bodies] == sentiment.tolist()
    assert len(set(titles)) > 400
    assert len(set(bodies)) > 3_000


def test_sentiments_are_balanced(data: Simulated) -> None:
    tones = np.array([tone(t) for t in data.articles["title"]])
    error = 4 / np.sqrt(len(tones))
    assert np.mean(tones) == pytest.approx(0.0, abs=error)
    assert np.mean(tones == 0) == pytest.approx(0.30, abs=error)


def test_articles_obey_the_known_time_rule(data: Simulated) -> None:
    again = data.articles.select(
        available_at_expr(pl.col("published_at"), pl.col("collected_at"), pl.col("precision"))
    )
    assert again.to_series().equals(data.articles["available_at"], check_names=False)
    assert (data.articles["published_at"] <= data.articles["collected_at"]).all()
    assert data.articles["article_id"].is_unique().all()
    assert data.articles.null_count().sum_horizontal().item() == 0


def test_articles_also_come_while_the_market_is_closed(data: Simulated) -> None:
    closed = data.sessions.locate(data.articles["available_at"]) < 0
    last = data.oracle["decision_at"][-1]
    open_hours = data.sessions.minutes(data.bars["time"][0], last) / 60
    assert (~closed).sum() / open_hours == pytest.approx(4.0, rel=0.05)
    assert closed.sum() > 300
    assert set(data.articles.filter(pl.Series(closed))["available_at"].dt.weekday().unique()) >= {6, 7}


def test_an_article_acts_from_the_first_decision_after_it_and_fades_over_30_minutes(data: Simulated) -> None:
    available = data.articles["available_at"].to_physical().to_numpy()
    tones = np.array([tone(t) for t in data.articles["title"]])
    decision = data.oracle["decision_at"].to_physical().to_numpy()
    news = data.oracle["news"].to_numpy()
    inside = data.sessions.locate(data.articles["available_at"])
    gap = np.minimum(np.diff(available, prepend=0), np.diff(available, append=2**62))
    alone = np.flatnonzero((gap > 35 * MINUTE_US) & (inside >= 0))
    left = data.sessions.close_us[np.maximum(inside, 0)] - available
    seen = 0
    for a in alone[left[alone] > 62 * MINUTE_US]:
        first = int(
            np.searchsorted(decision, available[a], side="right")
        )  # strictly after: available < decision
        span = (decision >= available[a] - 4 * MINUTE_US) & (decision < available[a] + 34 * MINUTE_US)
        if span.sum() != 38:
            continue  # a minute is missing, or the session has just begun
        assert news[first - 1] == pytest.approx(0.0, abs=1e-15)
        assert np.sign(np.round(news[first], 12)) == tones[a]
        fading = news[first] * np.arange(30, 0, -1) / 30
        np.testing.assert_allclose(news[first : first + 30], fading, atol=1e-15, rtol=1e-9)
        assert news[first + 30] == pytest.approx(0.0, abs=1e-15)
        seen += tones[a] != 0
    assert seen > 50


def test_no_recent_article_no_forecast(data: Simulated) -> None:
    available = data.articles["available_at"].to_physical().to_numpy()
    decision = data.oracle["decision_at"].to_physical().to_numpy()
    before = np.searchsorted(available, decision, side="left")
    quiet = before == np.searchsorted(available, decision - 31 * MINUTE_US, side="left")
    assert quiet.sum() > 5_000
    np.testing.assert_allclose(data.oracle["news"].to_numpy()[quiet], 0.0, atol=1e-15)
