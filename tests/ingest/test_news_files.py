"""Every layout of files gives the same articles; what cannot be read is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import DataError, SettingsError
from marketray.ingest.article_store import STORED
from marketray.ingest.sources import articles as source
from tests.ingest.made_bars import bronze
from tests.ingest.made_news import article, ingest, put, refused, stored, titles

BODY = 'He said: "Buy",\nthen; sold | all'
ARTICLES = [
    article("Stocks rise", body=BODY, url="https://e.com/1", source="a", collected_at="2024-03-05T15:00:00Z"),
    article("Stocks fall", "2024-04-01T00:00:00Z", body=None, url=None, source="b", collected_at=None),
]


@pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet", "json", "ndjson.gz"])
def test_every_format_gives_the_same_articles(home: Path, ending: str) -> None:
    paths = [home / f"news.{ending}"]
    if ending == "json":
        paths = [home / "1.json", home / "2.json"]
        for path, one in zip(paths, ARTICLES, strict=True):
            path.write_text(json.dumps(one, indent=1))
    elif ending == "ndjson.gz":
        paths[0].write_bytes(gzip.compress("".join(json.dumps(a) + "\n" for a in ARTICLES).encode()))
    else:
        put(paths[0], ARTICLES)
    ingest(home, *paths)
    found = stored(home)
    assert found.columns == [*STORED.names, "month"]
    assert found["month"].to_list() == ["2024-03", "2024-04"]
    assert found["body"].to_list() == [BODY, None]
    assert found["collected_at"].dt.strftime("%FT%T").to_list() == [
        "2024-03-05T15:00:00",
        "2024-04-01T00:00:00",
    ]
    assert found["available_at"].dt.strftime("%FT%T").to_list() == [
        "2024-03-05T15:01:00",
        "2024-04-01T00:01:00",
    ]
    assert found["file"].to_list() == [paths[0].name, paths[-1].name]


def test_the_layout_of_a_json_per_article_needs_no_mapping(home: Path) -> None:
    fields = {
        "article_id": "0f3a",
        "headline": "Wall Street ends higher",
        "body": "Stocks rose.",
        "url": "https://e.com/wall",
        "source": "gdelt_e.com",
        "published_at": "2024-03-05T14:20:30+00:00",
        "collected_at": "2024-03-05T18:00:00+00:00",
        "sp500_relevant": True,
        "language": "en",
    }
    folder = home / "news"
    folder.mkdir()
    (folder / "0f3a.json").write_text(json.dumps(fields))
    (folder / "seen_articles.json").write_text(json.dumps({"seen": ["0f3a"], "total_count": 1}))
    result = ingest(home, folder / "*.json")
    assert (result.rows_out, result.quarantined) == (1, {"missing_published_at": 1})
    row = stored(home).row(0, named=True)
    assert (row["article_id"], row["title"], row["source"]) == (
        "0f3a",
        "Wall Street ends higher",
        "gdelt_e.com",
    )
    assert row["available_at"].isoformat() == "2024-03-05T18:01:00+00:00"


def test_broken_rows_are_refused_with_line_and_text(home: Path) -> None:
    good = json.dumps(article("A"))
    nd = home / "news.ndjson"
    nd.write_text(f"{good}\n\n{{broken\n[1]\n" + "[" * 200_000 + "\n")
    assert ingest(home, nd).quarantined == {"unreadable_row": 3}
    assert refused(home) == dict.fromkeys((3, 4, 5), "unreadable_row")
    found = bronze(home, "quarantine/articles")
    assert found.select("text", "file", "month").row(0) == ("{broken", "news.ndjson", "undated")
    table = home / "news.csv"
    table.write_text('title;published_at\n"two\nlines";2024-01-01T00:00:00Z\na;b;c\nB;2024-01-02T00:00:00Z\n')
    ingest(home / "csv", table, language="en")
    assert (titles(home / "csv"), refused(home / "csv")) == (["two\nlines", "B"], {4: "unreadable_row"})


def test_half_a_character_is_kept_as_its_code(home: Path) -> None:
    path = home / "news.ndjson"
    path.write_text('{"title": "a\\ud800b", "published_at": "2024-01-01T00:00:00Z"}\n')
    ingest(home, path, language="en")
    assert titles(home) == ["a\\ud800b"]


def test_other_types_become_text(home: Path) -> None:
    path = home / "news.ndjson"
    path.write_text(json.dumps({"title": 7, "published_at": 1709648430, "body": ["x"], "article_id": 12}))
    ingest(home, path, language="en")
    row = stored(home).row(0, named=True)
    assert (row["title"], row["body"], row["article_id"]) == ("7", '["x"]', "12")
    assert row["published_at"].isoformat() == "2024-03-05T14:20:30+00:00"
    frame = pl.read_ndjson(path).select("article_id", "published_at", title=pl.lit("7", pl.Categorical))
    frame.write_parquet(home / "news.parquet")
    ingest(home / "parquet", home / "news.parquet", language="en")
    assert stored(home / "parquet").select("article_id", "title", "published_at").row(0) == (
        "12",
        "7",
        row["published_at"],
    )


@pytest.mark.parametrize(
    ("name", "content", "news", "message"),
    [
        ("n.csv", "", {}, "n.csv is empty; required: a header line and articles"),
        ("n.csv", "title,published_at\n", {}, "n.csv hold no rows; required: articles"),
        ("n.csv", "title,date\n", {}, r"lacks \['published_at'\]; it has \['title', 'date'\]"),
        ("n.csv", "published_at\n", {}, r"lacks \['title'\]"),
        ("n.csv", "title,published_at\n", {"columns": {"body": "x"}}, r"lacks \['x'\]"),
        ("n.csv", "title,published_at\n", {"precision": "exact_to"}, r"lacks \['exact_to'\]"),
        ("n.xlsx", "x", {}, "news.format: n.xlsx has no known ending; required: one of .*'.json'"),
        ("n.parquet", "PAR1 no", {}, "n.parquet cannot be read as parquet"),
        ("n.csv.gz", "no gzip", {}, "n.csv.gz cannot be read as csv"),
        ("n.csv", 'title,published_at\n"' + "x" * 200_000, {}, "cannot be read as csv: field larger"),
    ],
)
def test_files_that_cannot_be_used(
    home: Path, name: str, content: str, news: dict[str, object], message: str
) -> None:
    (home / name).write_text(content)
    with pytest.raises(DataError, match=message):
        ingest(home, home / name, **news)
    assert not list((home / "lake").rglob("*.parquet"))


def test_more_files_that_cannot_be_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"news.paths: .*no.csv does not exist; required: a file of articles"):
        ingest(home, home / "no.csv")
    path = put(home / "n.parquet", [article("A", published_at=1.5)])
    with pytest.raises(DataError, match="'published_at' of type double for published_at; required: a timest"):
        ingest(home, path)
    with pytest.raises(SettingsError, match=r"news.columns: got \['headline'\]; required: ours"):
        ingest(home, path, columns={"headline": "title"})
    (home / "n.json").write_text(json.dumps(article("A")))
    monkeypatch.setattr(source, "_MAX_JSON_BYTES", 10)
    with pytest.raises(DataError, match="has over 10 characters; required: one article a file"):
        ingest(home, home / "n.json")
