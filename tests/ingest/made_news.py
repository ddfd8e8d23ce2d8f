"""Made articles for the tests of news, and how to ingest them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from marketray.ingest.news import ingest_news
from marketray.ingest.news_record import NewsResult
from marketray.settings import Settings, load_settings
from tests.ingest.made_bars import bronze

Article = dict[str, Any]


def article(title: str, published_at: str = "2024-03-05T14:20:30Z", **fields: Any) -> Article:
    """An article as a file has it, in English."""
    return {"title": title, "published_at": published_at, "language": "en", **fields}


def put(path: Path, articles: list[Article]) -> Path:
    """Write articles as NDJSON, CSV or Parquet by the path's ending; a missing field is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ndjson":
        path.write_text("".join(json.dumps(a) + "\n" for a in articles), encoding="utf-8")
        return path
    frame = pl.DataFrame(articles, infer_schema_length=None)
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return path


def settings_for(home: Path, *paths: Path, **news: Any) -> Settings:
    """Settings with a `news` section for `paths`; a second is exact and any share may be refused."""
    section = {"precision": "second", "max_quarantined_share": 1.0, **news, "paths": [str(p) for p in paths]}
    overrides = {
        "home": str(home),
        "instrument": "TEST",
        "source": {"kind": "files", "paths": ["bars.csv"]},
        "news": section,
    }
    return load_settings(overrides=overrides)


def ingest(home: Path, *paths: Path, **news: Any) -> NewsResult:
    """Ingest articles into the lake of `home`; the counts must add up."""
    result = ingest_news(settings_for(home, *paths, **news))
    assert result.rows_in == (
        result.rows_out + result.rows_quarantined + result.rows_dropped + result.rows_duplicate
    )
    assert result.rows_quarantined == sum(result.quarantined.values())
    assert result.rows_dropped == sum(result.dropped.values())
    assert result.rows_duplicate == sum(result.duplicates.values())
    return result


def stored(home: Path) -> pl.DataFrame:
    """All articles in bronze, with their month."""
    return bronze(home, "bronze/articles")


def titles(home: Path) -> list[str]:
    """Titles in bronze, in order of known time."""
    found = stored(home)
    return found["title"].to_list() if len(found) else []


def refused(home: Path) -> dict[int, str]:
    """Reason of every quarantined article by line."""
    found = bronze(home, "quarantine/articles")
    return dict(found.sort("line").select("line", "reason").iter_rows()) if len(found) else {}
