"""When an article is known: precisions, zones, refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from marketray.errors import DataError, SettingsError
from marketray.ingest.articles import available_at, available_at_expr

PUBLISHED = datetime(2024, 3, 5, 14, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("second", datetime(2024, 3, 5, 14, 21, 30, tzinfo=UTC)),
        ("minute", datetime(2024, 3, 5, 14, 22, 0, tzinfo=UTC)),
        ("hour", datetime(2024, 3, 5, 15, 21, 30, tzinfo=UTC)),
        ("day", datetime(2024, 3, 6, 12, 1, 0, tzinfo=UTC)),  # no zone declared: UTC-12
    ],
)
def test_a_coarse_stamp_counts_from_the_end_of_its_span(precision: str, expected: datetime) -> None:
    assert available_at(PUBLISHED, PUBLISHED, precision) == expected  # type: ignore[arg-type]


def test_collection_counts_when_it_is_later() -> None:
    late = PUBLISHED + timedelta(days=30)
    for precision in ("second", "minute", "hour", "day"):
        assert available_at(PUBLISHED, late, precision) == late + timedelta(seconds=60)  # type: ignore[arg-type]
    assert available_at(PUBLISHED, PUBLISHED - timedelta(hours=1)) == PUBLISHED + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("day", "zone", "end"),
    [
        ("2024-03-09", "America/New_York", "2024-03-10T05:00"),
        ("2024-03-10", "America/New_York", "2024-03-11T04:00"),  # the day the clocks go forward
        ("2024-03-05", "Asia/Tokyo", "2024-03-05T15:00"),
        ("2018-11-03", "America/Sao_Paulo", "2018-11-04T03:00"),  # midnight itself is skipped
        ("2018-02-17", "America/Sao_Paulo", "2018-02-18T03:00"),  # 23:00 to 24:00 comes twice
    ],
)
def test_end_of_the_day_in_the_source_s_zone(day: str, zone: str, end: str) -> None:
    stamp = datetime.fromisoformat(day).replace(tzinfo=UTC)
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    assert available_at(stamp, long_ago, "day", zone, 0) == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_other_zones_and_latency() -> None:
    east = PUBLISHED.astimezone(timezone(timedelta(hours=9)))
    assert available_at(east, PUBLISHED, latency_seconds=0.5) == PUBLISHED + timedelta(seconds=0.5)


def test_expression_gives_null_where_the_time_is_not_known() -> None:
    kind = pl.Datetime("us", "UTC")
    frame = pl.DataFrame(
        {
            "p": [PUBLISHED, PUBLISHED, None, PUBLISHED, PUBLISHED],
            "c": [PUBLISHED, None, PUBLISHED, PUBLISHED, PUBLISHED],
            "precision": ["second", "second", "day", "fortnight", None],
        },
        schema_overrides={"p": kind, "c": kind},
    )
    got = frame.select(available_at_expr(pl.col("p"), pl.col("c"), pl.col("precision"))).to_series()
    assert got.to_list() == [PUBLISHED + timedelta(seconds=60), None, None, None, None]
    assert got.dtype == kind


def test_refusals() -> None:
    naive = PUBLISHED.replace(tzinfo=None)
    with pytest.raises(DataError, match=r"published_at=2024-03-05T14:20:30 has no time zone"):
        available_at(naive, PUBLISHED)
    with pytest.raises(DataError, match=r"collected_at=2024-03-05T14:20:30 has no time zone"):
        available_at(PUBLISHED, naive)
    with pytest.raises(DataError, match=r"precision='week'; required: one of second, minute, hour, day"):
        available_at(PUBLISHED, PUBLISHED, "week")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"day_zone='Mars' is not an IANA zone"):
        available_at(PUBLISHED, PUBLISHED, "day", "Mars")
    with pytest.raises(SettingsError, match=r"latency_seconds=-1; required: at least 0"):
        available_at(PUBLISHED, PUBLISHED, latency_seconds=-1)
