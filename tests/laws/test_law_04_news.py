"""Law 4, partition independence, for news features: stored by month, read with the months they need."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from marketray.bars import COLUMNS
from marketray.features.catalog import build_catalog
from marketray.features.definition import NEWS
from marketray.features.kernel import compute, compute_range
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.sentiment.store import SENTIMENT, months_between, news_contents, read_news
from marketray.settings import FeatureSettings
from tests.features.market import make_bars, sessions_of

BARS = make_bars(9_000, seed=8, start=datetime(2024, 2, 26, tzinfo=UTC))  # into March
SESSIONS = sessions_of(BARS["time"])
CATALOG = build_catalog(FeatureSettings(groups=("news",)), (*COLUMNS, NEWS))


def stored_news(lake: Lake) -> pl.DataFrame:
    """Articles from twelve days before the bars on, stored by month as the sentiment stage does."""
    rng = np.random.default_rng(4)
    first = BARS["time"][0] - timedelta(days=12)
    seconds = np.sort(rng.integers(0, int((BARS["time"][-1] - first).total_seconds()), 600))
    p = rng.dirichlet([0.6, 0.6, 0.6], len(seconds)).astype(np.float32)
    times = pl.Series("available_at", [first + timedelta(seconds=int(s)) for s in seconds])
    scored = [pl.Series(n, v) for n, v in zip(("positive", "negative", "neutral"), p.T, strict=True)]
    news = pl.DataFrame([times.cast(pl.Datetime("us", "UTC")), *scored])
    for (month,), rows in news.group_by(times.dt.strftime("%Y-%m"), maintain_order=True):
        table = rows.to_arrow()
        manifest = Manifest("k", table_hash(table), len(rows), len(rows))
        lake.write(SENTIMENT, {"instrument": "TEST", "month": str(month)}, table, manifest)
    return news.with_columns(pl.col("positive", "negative", "neutral").cast(pl.Float64))


def test_any_cut_with_the_months_it_needs_gives_the_rows_of_one_piece(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    news = stored_news(lake)
    whole = compute(CATALOG, BARS, SESSIONS, news)
    edges = [BARS["time"][0], datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 4, 12, tzinfo=UTC)]
    edges.append(BARS["time"][-1] + timedelta(minutes=1))
    contents, parts = news_contents(lake, "TEST"), []
    assert list(contents) == ["2024-02", "2024-03"]
    for start, end in itertools.pairwise(edges):
        known = read_news(lake, "TEST", months_between(contents, start, end))
        piece = BARS.to_arrow()
        table = compute_range(CATALOG, piece, SESSIONS, start, end, news=known, from_start=True)
        parts.append(pl.DataFrame(pl.from_arrow(table)))
    together = pl.concat(parts)
    exact = [f.name for f in CATALOG.features if f.exact]
    assert_frame_equal(together.select(exact), whole.select(exact), check_exact=True)
    assert_frame_equal(together, whole, rel_tol=1e-9, abs_tol=1e-12)


def test_every_cut_knows_since_when_there_is_news(tmp_path: Path) -> None:
    """One old article, or a later one, decides between no news and none known, however the work is cut."""
    day, edge = timedelta(days=1), BARS["time"][5_000]
    for first in (BARS["time"][0] - 200 * day, BARS["time"][2_000]):
        lake = Lake(str(tmp_path / f"{first:%Y%m%d}"))
        scores = {"positive": 0.5, "negative": 0.2, "neutral": 0.3}
        news = pl.DataFrame([{"available_at": t, **scores} for t in (first, edge + day)])
        news = news.with_columns(pl.col("available_at").cast(pl.Datetime("us", "UTC")))
        for (month,), rows in news.group_by(pl.col("available_at").dt.strftime("%Y-%m")):
            manifest = Manifest("k", table_hash(rows.to_arrow()), len(rows), len(rows))
            lake.write(SENTIMENT, {"instrument": "TEST", "month": str(month)}, rows.to_arrow(), manifest)
        contents, end = news_contents(lake, "TEST"), BARS["time"][-1] + day
        for start, stop in ((BARS["time"][0], edge), (edge, end)):
            known = read_news(lake, "TEST", months_between(contents, start, stop))
            table = compute_range(
                CATALOG, BARS.to_arrow(), SESSIONS, start, stop, news=known, from_start=True
            )
            rows = pl.DataFrame(pl.from_arrow(table))
            covered = rows["decision_at"] > first
            assert rows["news_article_count_15m"].is_not_null().equals(covered)


def test_a_month_is_read_as_long_as_any_decision_knows_its_articles() -> None:
    months = ["2024-01", "2024-02", "2024-03"]
    early, late = datetime(2024, 3, 10, 23, 59, tzinfo=UTC), datetime(2024, 3, 12, tzinfo=UTC)
    since = datetime(2023, 12, 1, tzinfo=UTC)
    assert months_between(months[1:], early, late) == ("2024-02", "2024-03")  # ten days back: 29 February
    assert months_between(["2023-12", *months], early, late) == ("2023-12", "2024-02", "2024-03")
    assert months_between(months, late, late) == ("2024-01", "2024-03")  # the first says since when
    assert months_between(months, since, since) == ()
    assert months_between(months, datetime(2024, 2, 1, tzinfo=UTC)) == tuple(months)
