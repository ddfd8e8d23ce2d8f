"""The real headlines by settings alone: every row is accounted for, and known when it could be."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.ingest.news import ingest_news
from marketray.settings import load_settings
from tests.ingest.made_news import ingest, stored

CONFIG = Path(__file__).parents[2] / "configs" / "spx-news-2018-2019.yaml"


def sibling(spx_path: Path, name: str) -> Path:
    path = spx_path.parent / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def test_headlines_by_day_and_minute(home: Path, spx_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sibling(spx_path, "news_headlines_2017_2020.parquet")
    monkeypatch.setenv("MARKETRAY_DATA", str(path.parent))
    overrides = {"home": str(home), "instrument": "TEST"}
    result = ingest_news(load_settings(CONFIG, overrides))
    assert (result.rows_in, result.rows_out, result.rows_quarantined, result.rows_dropped) == (
        *(53_251, 53_116, 0, 0),
    )
    assert result.duplicates == {"same_text": 135}
    found = stored(home)
    counts = dict(
        found.group_by("source", "precision")
        .len()
        .select(pl.concat_str("source", "precision", separator=" "), "len")
        .rows()
    )
    assert set(counts) == {"reuters day", "guardian day", "cnbc minute"}
    guardian = found.filter(pl.col("source") == "guardian")
    midnights = (pl.col("published_at").dt.date() + pl.duration(days=1)).cast(pl.Datetime("us"))
    ends = guardian.select(
        midnights.dt.replace_time_zone("Europe/London").dt.convert_time_zone("UTC") + pl.duration(seconds=60)
    ).to_series()
    assert guardian["available_at"].equals(ends.alias("available_at"))
    reuters = found.filter(pl.col("source") == "reuters")
    waits = reuters["available_at"] - reuters["published_at"]
    assert set(waits.dt.total_seconds()) == {36 * 3_600 + 60}  # the end of the day at UTC-12
    cnbc = found.filter(pl.col("source") == "cnbc")
    assert set((cnbc["available_at"] - cnbc["published_at"]).dt.total_seconds()) == {120}
    raw = pl.read_parquet(path)
    different = raw.select(
        pl.concat_str(pl.col("title"), pl.col("description").fill_null(""), separator=" ")
        .str.to_lowercase().str.replace_all(r"\s", "")
    ).n_unique()  # fmt: skip
    assert abs(different - result.rows_out) <= 5  # a coarser normal form than ours, in Polars alone


def test_ratings_of_stocks_by_minute(home: Path, spx_path: Path) -> None:
    path = sibling(spx_path, "news_analyst_ratings_A_tickers.parquet")
    result = ingest(
        home, path, precision="precision", day_zone="America/New_York", language="en",
        columns={"published_at": "time"}, source="benzinga",
    )  # fmt: skip
    assert (result.rows_in, result.rows_quarantined, result.rows_dropped) == (9_956, 0, 0)
    raw = pl.read_parquet(path)
    assert abs(result.rows_out - raw["title"].str.to_lowercase().n_unique()) < 20
    nextvr = stored(home).filter(pl.col("title").str.contains("Startup NextVR")).row(0, named=True)
    assert nextvr["published_at"] == datetime(2020, 5, 15, 4, tzinfo=UTC)
    assert nextvr["available_at"] == datetime(2020, 5, 16, 4, 1, tzinfo=UTC)


def test_latest_headlines_of_each_hour_an_hour_late(home: Path, spx_path: Path) -> None:
    path = sibling(spx_path, "news_gdelt_hourly_2020_2025.parquet")
    columns = {"published_at": "time", "title": "latest_headline", "source": "latest_source"}
    result = ingest(home, path, precision="hour", latency_seconds=3_660, columns=columns, languages=[])
    assert (result.rows_in, result.rows_quarantined, result.rows_dropped) == (16_254, 0, 0)
    found = stored(home)
    assert set((found["available_at"] - found["published_at"]).dt.total_seconds()) == {2 * 3_600 + 60}
    first = found.row(0, named=True)
    assert (first["source"], first["published_at"]) == (
        "gdelt_finanznachrichten.de",
        datetime(2020, 10, 1, 3, tzinfo=UTC),
    )
