"""What the report says of the rows of every stage, against ingests of known bad rows."""

from __future__ import annotations

from pathlib import Path

from marketray.evaluation.data_quality import data_quality
from marketray.lake import Lake
from tests.ingest import made_bars, made_news


def test_what_ingest_put_into_quarantine_is_told_by_reason(home: Path) -> None:
    lines = made_bars.as_text(made_bars.minutes(400)).write_csv().splitlines()
    for line, low in ((9, "999"), (10, "999"), (11, "abc")):
        fields = lines[line].split(",")
        fields[3] = low
        lines[line] = ",".join(fields)
    path = home / "bars.csv"
    path.write_text("\n".join(lines))
    settings = made_bars.settings_for(home, path)
    made_bars.ingest(home, path)
    assert data_quality(settings) == {
        "stages": [
            {
                "stage": "ingest",
                "rows_in": 400,
                "rows_out": 397,
                "rows_quarantined": 3,
                "rows_dropped": 0,
            }
        ],
        "quarantined": [
            {"stage": "ingest", "reason": "ohlc_inconsistent", "rows": 2},
            {"stage": "ingest", "reason": "unreadable_low", "rows": 1},
        ],
    }


def test_news_counts_its_copies_as_left_out_and_every_stage_adds_up(home: Path) -> None:
    news = [made_news.article("stocks rise"), made_news.article("stocks rise"), made_news.article("bonds")]
    path = made_news.put(home / "a.ndjson", [*news, made_news.article("torn", published_at="someday")])
    settings = made_news.settings_for(home, path, max_quarantined_share=1.0)
    done = made_news.ingest(home, path, max_quarantined_share=1.0)
    lake = Lake(settings.lake_uri)
    counts = {"rows_in": 2, "rows_out": 1, "rows_quarantined": 1, "rows_dropped": 0}
    detail = {"reasons": {"no_text": 1}}
    lake.write_json(f"manifests/sentiment/{settings.instrument}.json", {**counts, "detail": detail})
    lake.write_json(f"manifests/features/{settings.instrument}.json", {**counts, "detail": {"other": 7}})
    lake.write_json(f"manifests/dataset/{settings.name}.json", counts)
    found = data_quality(settings)
    assert [stage["stage"] for stage in found["stages"]] == ["news", "sentiment", "features", "dataset"]
    first = found["stages"][0]
    assert (first["rows_in"], first["rows_out"], first["rows_dropped"]) == (4, 2, 1)
    for stage in found["stages"]:
        out = stage["rows_out"] + stage["rows_quarantined"] + stage["rows_dropped"]
        assert stage["rows_in"] == out
    (reason,) = done.quarantined
    assert found["quarantined"] == [
        {"stage": "news", "reason": reason, "rows": 1},
        {"stage": "sentiment", "reason": "no_text", "rows": 1},
    ]


def test_without_a_manifest_nothing_is_said(home: Path) -> None:
    assert data_quality(made_bars.settings_for(home, home / "none.csv")) == {
        "stages": [],
        "quarantined": [],
    }
