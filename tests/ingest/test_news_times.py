"""When articles from files are known: precision, zones, refusals. Expected times are worked out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from marketray.errors import DataError, SettingsError
from marketray.ingest.news import ingest_news
from tests.ingest.made_news import article, ingest, put, refused, settings_for, stored


def known(home: Path, published_at: Any, ending: str = "ndjson", **news: Any) -> str:
    """`available_at` of one article without latency."""
    fields = news.pop("fields", {})
    ingest(home, put(home / f"n.{ending}", [article("A", published_at, **fields)]), latency_seconds=0, **news)
    return str(stored(home)["available_at"].dt.strftime("%FT%T").item())


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("second", "2024-03-05T14:20:30"),
        ("minute", "2024-03-05T14:21:00"),
        ("hour", "2024-03-05T15:20:30"),  # an hour may begin at any minute of UTC
    ],
)
def test_a_stamp_counts_from_the_end_of_its_span(home: Path, precision: str, expected: str) -> None:
    assert known(home, "2024-03-05T14:20:30Z", precision=precision) == expected


@pytest.mark.parametrize(
    ("stamp", "zone", "end"),
    [
        ("2024-03-05", "Europe/London", "2024-03-06T00:00:00"),
        ("2024-06-05", "Europe/London", "2024-06-05T23:00:00"),
        ("2024-03-05", "unknown", "2024-03-06T12:00:00"),
        ("2024-03-05", "Asia/Tokyo", "2024-03-05T15:00:00"),
        ("2024-03-05T00:00:00", "Asia/Tokyo", "2024-03-05T15:00:00"),  # without a zone: as written
        ("2024-03-04T15:00:00Z", "Asia/Tokyo", "2024-03-05T15:00:00"),  # midnight in Tokyo
        ("2024-03-05T00:00:00+09:00", "Asia/Tokyo", "2024-03-05T15:00:00"),
        ("2024-03-05T00:00:00+09:00", "unknown", "2024-03-06T12:00:00"),
        ("2024-03-05T05:00:00Z", "America/New_York", "2024-03-06T05:00:00"),  # midnight in New York
        ("2024-03-05T00:00:00Z", "America/New_York", "2024-03-06T05:00:00"),  # the date as written
        (1709596800, "America/New_York", "2024-03-06T05:00:00"),  # 2024-03-05T00:00Z
    ],
)
@pytest.mark.parametrize("timezone", [None, "Asia/Tokyo"])
def test_a_day_ends_in_the_source_s_zone(
    home: Path, stamp: Any, zone: str, end: str, timezone: str | None
) -> None:
    assert known(home, stamp, precision="day", day_zone=zone, timezone=timezone) == end


def test_days_in_parquet(home: Path) -> None:
    day = {"precision": "day", "day_zone": "Asia/Tokyo"}
    assert known(home, date(2024, 3, 5), "parquet", **day) == "2024-03-05T15:00:00"
    typed = pl.Series([datetime(2024, 3, 4, 15, tzinfo=UTC)]).dt.convert_time_zone("Asia/Tokyo")
    pl.DataFrame({"title": ["A"], "published_at": typed}).write_parquet(home / "t.parquet")
    ingest(home / "typed", home / "t.parquet", language="en", latency_seconds=0, **day)
    assert stored(home / "typed")["available_at"].item() == datetime(2024, 3, 5, 15, tzinfo=UTC)


def test_each_source_has_its_zone_and_precision(home: Path) -> None:
    rows = [
        article("L", "2024-06-05", source="guardian", exact="Day"),
        article("U", "2024-06-05", source="reuters", exact="day"),
        article("M", "2024-06-05T10:00:10Z", source="cnbc", exact="minute"),
        article("S", "2024-06-05T10:00:10Z", exact="second"),
        article("X", "2024-06-05T10:00:10Z", source="cnbc", exact="roughly"),
        article("N", "2024-06-05T10:00:10Z", source="cnbc", exact=None),
        article("D", "2024-06-05", source="cnbc", exact="minute"),
    ]
    zones = {"guardian": "Europe/London", "reuters": "unknown"}
    path = put(home / "n.ndjson", rows)
    ingest(home, path, precision="exact", day_zone=zones)
    found = stored(home)
    assert dict(found.select("title", pl.col("available_at").dt.strftime("%dT%T")).iter_rows()) == {
        "S": "05T10:01:10",
        "M": "05T10:02:00",
        "L": "05T23:01:00",
        "U": "06T12:01:00",
    }
    assert found["precision"].to_list() == ["second", "minute", "day", "day"]
    assert refused(home) == {5: "unknown_precision", 6: "unknown_precision", 7: "date_without_time"}
    message = r"n.ndjson line 2 is known by the day, and no zone is declared for its source 'reuters'"
    for wrong in ({"guardian": "Europe/London"}, {"guardian": "UTC", "ap": "UTC"}):
        with pytest.raises(SettingsError, match=message):
            ingest(home, path, precision="exact", day_zone=wrong)
    for none in (None, {}):
        with pytest.raises(SettingsError, match="news.day_zone: n.ndjson line 1 is known by the day"):
            ingest(home, path, precision="exact", day_zone=none)


def test_seen_late_counts_from_then_and_seen_early_from_publication(home: Path) -> None:
    late, early = {"collected_at": "2024-04-01T00:00:00Z"}, {"collected_at": "2024-03-05T14:00:00Z"}
    assert known(home, "2024-03-05T14:20:30Z", fields=late) == "2024-04-01T00:00:00"
    assert known(home, "2024-03-05T14:20:30Z", fields=early) == "2024-03-05T14:20:30"


def test_local_stamps_need_their_zone(home: Path) -> None:
    assert known(home, "2024-03-05 09:20:30", timezone="America/New_York") == "2024-03-05T14:20:30"
    with pytest.raises(DataError, match=r"news.timezone: n.ndjson line 1 has the published_at '2024-03-05 0"):
        known(home, "2024-03-05 09:20:30")
    late = {"collected_at": "2024-04-01 00:00"}
    with pytest.raises(DataError, match=r"has the collected_at '2024-04-01 00:00' without a time zone"):
        known(home, "2024-03-05T09:20:30Z", fields=late)


def test_unusable_times_are_refused_never_the_present(home: Path) -> None:
    stamps = [
        ("2024-03-05T14:20:30Z", None),
        ("yesterday", "unreadable_published_at"),
        ("", "missing_published_at"),
        (None, "missing_published_at"),
        ("03/05/2024 10:00", "unreadable_published_at"),
        ("2024-03-05 10:00", "no_time_zone"),
        ("1969-12-31T00:00:00Z", "time_out_of_range"),
        ("2024-03-05", "date_without_time"),
    ]
    rows = [article(f"{i}", stamp) for i, (stamp, _) in enumerate(stamps)]  # type: ignore[arg-type]
    rows.append(article("c", collected_at="soon"))
    rows.append(article(" ", body=""))
    result = ingest(home, put(home / "n.ndjson", rows))
    expected = {i: reason for i, (_, reason) in enumerate(stamps, 1) if reason}
    assert refused(home) == {**expected, 9: "unreadable_collected_at", 10: "missing_text"}
    assert (result.rows_out, result.rows_quarantined) == (1, 9)
    local = [
        article("a", "2024-11-03 01:30"),
        article("b", "2024-03-10 02:30"),
        article("c", "2024-03-10 04:30"),
    ]
    ingest(home / "local", put(home / "l.ndjson", local), timezone="America/New_York")
    assert refused(home / "local") == {1: "ambiguous_local_time", 2: "nonexistent_local_time"}


def test_articles_from_the_future_are_refused(home: Path) -> None:
    """Five minutes are granted to a source's clock, and to a coarse stamp what it can mean."""
    rows = [
        article("S", "2024-03-05T12:05:00Z", exact="second"),
        article("T", "2024-03-05T12:05:01Z", exact="second"),
        article("H", "2024-03-05T13:00:00Z", exact="hour"),
        article("I", "2024-03-05T14:00:00Z", exact="hour"),
        article("D", "2024-03-06", exact="day"),  # since ten o'clock in Kiritimati
        article("E", "2024-03-07", exact="day"),
        article("C", "2024-03-05T11:00:00Z", exact="second", collected_at="2024-03-05T12:06:00Z"),
    ]
    path = put(home / "n.ndjson", rows)
    options = {"precision": "exact", "day_zone": "unknown"}
    past = settings_for(home, path, **options).model_copy(update={"clock": "2024-03-05T12:00:00Z"})
    result = ingest_news(past)
    assert refused(home) == {2: "after_clock", 4: "after_clock", 6: "after_clock", 7: "after_clock"}
    assert (result.rows_out, result.quarantined) == (3, {"after_clock": 4})
    assert ingest_news(past).written == 0
    later = ingest_news(past.model_copy(update={"clock": "2024-03-05T12:00:01Z"}))
    assert later.rows_out == 4


def test_what_lay_in_the_future_is_read_again(home: Path) -> None:
    """With the machine's clock, which is also that of `clock: data`."""
    soon = datetime.now(UTC) + timedelta(days=1)
    path = put(home / "n.ndjson", [article("A"), article("B", soon.isoformat())])
    assert ingest(home, path).quarantined == {"after_clock": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marketray.ingest.news.present", lambda _: soon)
        assert ingest(home, path).rows_out == 2


def test_quarantine_keeps_the_text_and_the_month(home: Path) -> None:
    rows = [article("A", "soon", source="s", url="u"), article(" ", "2024-03-05T10:00:00Z")]
    ingest(home, put(home / "n.ndjson", rows))
    from tests.ingest.made_bars import bronze

    found = bronze(home, "quarantine/articles").sort("line")
    columns = ["title", "published_at", "source", "url", "file", "line", "month"]
    assert found.select(columns).rows() == [
        ("A", "soon", "s", "u", "n.ndjson", 1, "undated"),
        (None, "2024-03-05T10:00:00Z", None, None, "n.ndjson", 2, "2024-03"),
    ]


@pytest.mark.parametrize(
    ("news", "message"),
    [
        ({"precision": "day"}, "precision='day' needs day_zone"),
        ({"day_zone": "London"}, "day_zone: got 'London'; required: a zone of the IANA database"),
        ({"day_zone": {"a": "UTC", "b": "../x"}}, "day_zone: got '../x'"),
        ({"timezone": "Mars"}, "timezone: got 'Mars'; required: a zone"),
        ({"relevance": ["Fed", " "]}, r"relevance=\['Fed', ' '\] has an empty term"),
        ({"latency_seconds": -1}, "news.latency_seconds: .*greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_be(home: Path, news: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_for(home, home / "n.csv", **news)
