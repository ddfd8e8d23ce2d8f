"""News windows against a brute-force reading of their definition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import given

from marketray.errors import DataError
from marketray.sentiment.signals import (
    COLUMNS,
    HALF_LIVES,
    MAX_AGE_MINUTES,
    NEWS_SCHEMA,
    WINDOWS,
    latest_article,
    news_columns,
)

MINUTE = 60_000_000
START = 1_700_000_000_000_000 // MINUTE * MINUTE


def scored(available_us, seed: int = 0) -> pl.DataFrame:
    """Articles known at these times, with seeded probabilities."""
    n = len(available_us)
    p = np.random.default_rng(seed).dirichlet([0.7, 0.7, 0.7], n).astype(np.float32).astype(np.float64)
    columns = {
        "available_at": sorted(available_us),
        "positive": p[:, 0],
        "negative": p[:, 1],
        "neutral": p[:, 2],
    }
    frame = pl.DataFrame(columns, schema_overrides={"available_at": pl.Int64})
    return frame.with_columns(pl.col("available_at").cast(pl.Datetime("us", "UTC")))


def brute_force(t: int, news: pl.DataFrame) -> dict[str, float]:
    """All columns at one decision, article by article."""
    at = news["available_at"].to_physical().to_numpy()
    p = news.select("positive", "negative", "neutral").to_numpy()
    s = p[:, 0] - p[:, 1]
    out = {}
    for name, minutes in WINDOWS.items():
        inside = (at >= t - minutes * MINUTE) & (at < t)
        before = (at >= t - 2 * minutes * MINUTE) & (at < t - minutes * MINUTE)
        some = inside.any()
        out[f"_news_count_{name}"] = inside.sum()
        out[f"_news_mean_{name}"] = s[inside].mean() if some else np.nan
        out[f"_news_quality_{name}"] = p[inside].max(axis=1).mean() if some else np.nan
        for k, label in enumerate(("positive", "negative", "neutral")):
            out[f"_news_{label}_{name}"] = p[inside, k].mean() if some else np.nan
        out[f"_news_dispersion_{name}"] = s[inside].std() if inside.sum() >= 2 else np.nan
        out[f"_news_previous_{name}"] = s[before].mean() if before.any() else np.nan
    for name, minutes in HALF_LIVES.items():
        inside = (at >= t - 10 * minutes * MINUTE) & (at < t)
        weight = 2.0 ** (-(t - at[inside]) / (minutes * MINUTE))
        total = (weight * s[inside]).sum()
        out[f"_news_decayed_{name}"] = total / weight.sum() if inside.any() else np.nan
        out[f"_news_intensity_{name}"] = total
    past = at[at < t]
    minutes = (t - past[-1]) / MINUTE if len(past) else np.nan
    out["_news_minutes"] = minutes if minutes <= MAX_AGE_MINUTES else np.nan
    return out if len(past) else dict.fromkeys(out, np.nan)


def check(decisions, news) -> None:
    found = news_columns(np.array(decisions, np.int64), news)
    assert tuple(found) == COLUMNS
    for i, t in enumerate(decisions):
        expected = brute_force(t, news)
        for name in COLUMNS:
            # sums are in multiples of 2^-40; the root of a variance near 0 loses half of the digits
            tolerance = 3e-6 if "dispersion" in name else 1e-9
            assert found[name][i] == pytest.approx(expected[name], abs=tolerance, rel=1e-9, nan_ok=True), (
                name,
                i,
            )


@given(
    offsets=st.lists(st.integers(0, 40 * 1_440 * 60), max_size=60),
    steps=st.lists(st.integers(0, 3 * 1_440), min_size=1, max_size=20),
)
def test_every_column_is_what_its_definition_says(offsets, steps):
    decisions = [START + int(m) * MINUTE for m in np.cumsum(steps)]
    check(decisions, scored([START + s * 1_000_000 for s in offsets]))


def test_windows_that_cross_the_blocks_of_decaying_weights():
    # blocks of 400 one-hour half-lives start at whole multiples of 400 h since the epoch
    edge = (START // (400 * 60 * MINUTE) + 1) * 400 * 60 * MINUTE
    news = scored([edge + k * 7 * MINUTE for k in range(-120, 120)])
    check([edge + k * 11 * MINUTE for k in range(-60, 60)], news)


def test_an_article_counts_from_the_first_decision_after_its_availability():
    news = scored([START])
    news = pl.concat([scored([START - 90 * MINUTE]), news])
    found = news_columns(np.array([START, START + 1]), news)
    assert found["_news_count_60m"].tolist() == [0.0, 1.0]
    assert np.isnan(found["_news_mean_60m"][0])
    assert found["_news_minutes"][1] == pytest.approx(1 / MINUTE)


def test_the_oldest_article_of_a_window_leaves_it_after_its_whole_length():
    found = news_columns(np.array([START + 15 * MINUTE, START + 15 * MINUTE + 1]), scored([START]))
    assert found["_news_count_15m"].tolist() == [1.0, 0.0]


@given(cut=st.integers(0, 199), shift=st.integers(1, 10**9))
def test_an_article_changes_only_rows_after_it_is_known(cut, shift):
    available = [START + k * 13 * MINUTE for k in range(200)]
    decisions = np.array([START + k * 17 * MINUTE for k in range(160)])
    news = scored(available)
    moved = news.with_columns(
        pl.when(pl.int_range(pl.len()) >= cut)
        .then(pl.col("available_at") + timedelta(microseconds=shift))
        .otherwise("available_at")
        .alias("available_at")
    )
    before = decisions <= available[cut]  # decided before the article is known in either case
    was, now = news_columns(decisions, news), news_columns(decisions, moved)
    for name in COLUMNS:
        assert np.array_equal(was[name][before], now[name][before], equal_nan=True), name


def test_sums_do_not_depend_on_where_the_table_begins():
    news = scored(np.random.default_rng(3).integers(START, START + 60 * 1_440 * MINUTE, 5_000))
    decisions = np.arange(START + 50 * 1_440 * MINUTE, START + 60 * 1_440 * MINUTE, 37 * MINUTE)
    oldest = datetime.fromtimestamp(int(decisions[0]) / 1e6, UTC) - timedelta(minutes=MAX_AGE_MINUTES)
    whole, tail = (
        news_columns(decisions, news),
        news_columns(decisions, news.filter(pl.col("available_at") >= oldest)),
    )
    for name in COLUMNS:
        if "decayed" in name or "intensity" in name:  # sums of floats, equal up to rounding
            np.testing.assert_allclose(whole[name], tail[name], rtol=1e-11, atol=1e-12)
        else:
            assert np.array_equal(whole[name], tail[name], equal_nan=True), name


def test_without_any_article_yet_nothing_is_known_and_long_after_the_last_there_are_none():
    found = news_columns(np.array([START]), pl.DataFrame(schema=NEWS_SCHEMA))
    assert all(np.isnan(values[0]) for values in found.values())
    found = news_columns(np.array([START, START + 300 * 1_440 * MINUTE]), scored([START]))
    assert all(np.isnan(values[0]) for values in found.values())
    zero = {name for name, values in found.items() if values[1] == 0}
    assert zero == {n for n in COLUMNS if "count" in n or "intensity" in n}
    assert all(np.isnan(found[name][1]) for name in set(COLUMNS) - zero)


def test_equal_sentiments_have_no_dispersion():
    news = scored([START, START + 1, START + 2]).with_columns(positive=0.1, negative=0.7, neutral=0.2)
    assert news_columns(np.array([START + MINUTE]), news)["_news_dispersion_60m"][0] == 0.0


def test_the_latest_article_is_the_last_one_known_before_the_decision():
    news = scored([START, START + 5]).with_columns(title=pl.Series(["first", "second"]))
    assert latest_article(news, START) is None
    assert latest_article(news, START + 5)["title"] == "first"
    assert latest_article(news, START + 6)["title"] == "second"
    assert latest_article(news, START + 6 + MAX_AGE_MINUTES * MINUTE) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("neutral"), "news: neutral is None; required: Float64"),
        (
            lambda f: f.with_columns(pl.col("positive").cast(pl.Float32)),
            "positive is Float32; required: Float64",
        ),
        (lambda f: f.with_columns(positive=pl.lit(None, pl.Float64)), "positive is missing in 2 articles"),
        (lambda f: f.reverse(), "the articles are not sorted"),
    ],
)
def test_articles_that_cannot_be_used_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        news_columns(np.array([START]), change(scored([START, START + 1])))
