"""Stamps and numbers: what is read, what is refused, and why."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.errors import DataError, SettingsError
from marketray.ingest.parsing import ORIGINAL, check_zone, original, parse_chunk, parse_stamps
from marketray.ingest.sources.files import RawChunk

NEW_YORK = "America/New_York"
BROKEN = pl.DataFrame(schema={"line": pl.Int64, "reason": pl.String, "text": pl.String})


def one(stamp: object, timezone: str | None) -> tuple[datetime | None, str | None]:
    frame = parse_stamps(pl.Series([stamp]), timezone)
    return frame.row(0)


def chunk(**columns: list[object]) -> RawChunk:
    size = len(next(iter(columns.values())))
    return RawChunk("f.csv", pl.DataFrame({"line": range(2, 2 + size), **columns}), BROKEN)


def parse(raw: RawChunk, **options: object) -> pl.DataFrame:
    declared = {"timezone": "UTC", "stamp": "open", "interval_minutes": 1, **options}
    return parse_chunk(raw, **declared)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2018-01-31T10:05:00Z", datetime(2018, 1, 31, 10, 5)),
        ("2018-01-31T10:05:00.000000000Z", datetime(2018, 1, 31, 10, 5)),
        (" 2018-01-31 10:05:00+02:00 ", datetime(2018, 1, 31, 8, 5)),
        ("2018-01-31T10:05-0500", datetime(2018, 1, 31, 15, 5)),
        ("2018-01-31 10:05", datetime(2018, 1, 31, 15, 5)),
        ("2018-07-31T10:05:00", datetime(2018, 7, 31, 14, 5)),
        ("2018/01/31 10:05:00", datetime(2018, 1, 31, 15, 5)),
        ("20180131 100500", datetime(2018, 1, 31, 15, 5)),
        ("2018-01-31", datetime(2018, 1, 31, 5)),
        ("1517393100", datetime(2018, 1, 31, 10, 5)),
        ("1517393100000", datetime(2018, 1, 31, 10, 5)),
        ("1517393100000000", datetime(2018, 1, 31, 10, 5)),
        ("1517393100000000000", datetime(2018, 1, 31, 10, 5)),
        ("1517393100.000000000", datetime(2018, 1, 31, 10, 5)),
        (1517393100, datetime(2018, 1, 31, 10, 5)),
        (datetime(2018, 1, 31, 10, 5), datetime(2018, 1, 31, 15, 5)),
        (date(2018, 1, 31), datetime(2018, 1, 31, 5)),
        (datetime(2018, 1, 31, 10, 5, tzinfo=ZoneInfo("Europe/Berlin")), datetime(2018, 1, 31, 9, 5)),
    ],
)
def test_stamps_that_are_read(stamp: object, expected: datetime) -> None:
    assert one(stamp, NEW_YORK) == (expected.replace(tzinfo=UTC), None)


@pytest.mark.parametrize(
    ("stamp", "timezone", "reason"),
    [
        ("", "UTC", "missing_time"),
        ("NaN", "UTC", "missing_time"),
        ("yesterday", "UTC", "unreadable_time"),
        ("01/02/2018 10:00", "UTC", "unreadable_time"),  # January or February?
        ("2018-02-30 10:00", "UTC", "unreadable_time"),
        (15, "UTC", "unreadable_time"),
        ("2018-01-31 10:05", None, "no_time_zone"),
        ("2018-11-04 01:30", NEW_YORK, "ambiguous_local_time"),
        ("2018-03-11 02:30", NEW_YORK, "nonexistent_local_time"),
        (datetime(2018, 3, 11, 2, 30), NEW_YORK, "nonexistent_local_time"),
        ("2018-01-31T10:05:30Z", None, "off_minute"),
        ("1969-12-31T23:59:00Z", None, "time_out_of_range"),
        ("2100-01-01T00:00:00Z", None, "time_out_of_range"),
    ],
)
def test_stamps_that_are_refused(stamp: object, timezone: str | None, reason: str) -> None:
    assert one(stamp, timezone)[1] == reason


@given(st.datetimes(datetime(1971, 1, 1), datetime(2036, 1, 1)), st.sampled_from([NEW_YORK, "Europe/London"]))
def test_local_times_agree_with_the_time_zone_database(moment: datetime, zone: str) -> None:
    moment = moment.replace(second=0, microsecond=0)
    here = ZoneInfo(zone)
    instants = {moment.replace(tzinfo=here, fold=fold).astimezone(UTC) for fold in (0, 1)}
    places = {i for i in instants if i.astimezone(here).replace(tzinfo=None) == moment}
    time, reason = one(moment.isoformat(" "), zone)
    if len(places) == 1:
        assert (time, reason) == (places.pop(), None)
    else:
        assert reason == ("ambiguous_local_time" if places else "nonexistent_local_time")


def test_a_close_stamp_is_moved_to_the_open() -> None:
    raw = chunk(time=["2018-01-31 10:05"], open=["1"], high=["1"], low=["1"], close=["1"])
    parsed = parse(raw, timezone=NEW_YORK, stamp="close", interval_minutes=60)
    assert parsed["time"][0] == datetime(2018, 1, 31, 14, 5, tzinfo=UTC)
    assert original(parsed, "time").to_list() == ["2018-01-31 10:05"]


def test_numbers_in_text() -> None:
    values = ["1.5", " 2 ", "1e3", "", "NaN", "null", "inf", "1,5", "abc"]
    raw = chunk(
        time=["2018-01-31 10:05"] * 9,
        open=["1"] * 9,
        high=["1"] * 9,
        low=["1"] * 9,
        close=values,
        volume=values,
    )
    parsed = parse(raw)
    assert parsed["close"].to_list() == [1.5, 2.0, 1000.0, None, None, None, None, None, None]
    reasons = [None] * 3 + ["missing_close"] * 3 + ["unreadable_close"] * 3
    assert parsed["reason"].to_list() == reasons
    assert original(parsed, "close").to_list() == values
    only_volume = parse(RawChunk("f", raw.rows.with_columns(close=pl.lit("1")), BROKEN))
    assert only_volume["reason"].to_list() == [None] * 6 + ["unreadable_volume"] * 3


def test_numbers_that_are_typed() -> None:
    raw = chunk(
        time=[datetime(2018, 1, 31, 10, i, tzinfo=UTC) for i in range(4)],
        open=[1, 2, 3, 4],
        high=[1.0, float("nan"), None, float("inf")],
        low=[1.0] * 4,
        close=[1.0] * 4,
    )
    parsed = parse(raw, timezone=None)
    assert parsed["open"].to_list() == [1.0, 2.0, 3.0, 4.0]
    assert parsed["reason"].to_list() == [None, "missing_high", "missing_high", "unreadable_high"]
    assert original(parsed, "high").to_list() == ["1.0", None, None, "inf"]
    assert original(parsed, "time")[0] == "2018-01-31T10:00:00Z"
    assert original(parsed, "bid").to_list() == [None] * 4
    assert not [c for c in parsed.columns if c.startswith(ORIGINAL)]


def test_an_unfinished_candle_is_refused() -> None:
    raw = chunk(time=["2018-01-31 10:05"] * 2, open=["1"] * 2, high=["1"] * 2, low=["1"] * 2, close=["1"] * 2,
                complete=[True, False])  # fmt: skip
    assert parse(raw)["reason"].to_list() == [None, "incomplete_candle"]


def test_stamps_without_a_zone_need_a_declared_one() -> None:
    raw = chunk(time=["2018-01-31 10:05"], open=["1"], high=["1"], low=["1"], close=["1"])
    expected = "source.timezone: f.csv line 2 has the stamp '2018-01-31 10:05' without a time zone"
    with pytest.raises(DataError, match=expected):
        parse(raw, timezone=None)


def test_zones_are_checked() -> None:
    check_zone(None)
    check_zone("Europe/London")
    for zone in ("Mars/Olympus", "../etc", ""):
        with pytest.raises(SettingsError, match=r"source.timezone: got .* required: a zone of the IANA"):
            check_zone(zone)


def test_order_of_chunks_and_gaps_do_not_change_stamps() -> None:
    stamps = pl.Series(["2018-01-31 10:05", None, "2018-01-31T10:05:00Z", "x", "1517393100"])
    whole = parse_stamps(stamps, "UTC")
    single = pl.concat([parse_stamps(stamps[i : i + 1], "UTC") for i in range(5)])
    assert whole.equals(single)
    assert whole["time"].drop_nulls().n_unique() == 1
    assert whole["time"][0] == datetime(2018, 1, 31, 9, 5, tzinfo=UTC) + timedelta(hours=1)
