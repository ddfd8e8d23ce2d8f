"""Sessions against the exchanges' published hours."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from marketray.errors import SettingsError
from marketray.sessions import check_market, parse_break, trading_sessions
from marketray.settings import MarketSettings

HALT = ("17:00-18:00 America/New_York",)


def spans(calendar: str, day: date, breaks: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    frame = trading_sessions(calendar, day, day, breaks).frame.filter(pl.col("session_date") == day)
    return [(f"{a:%m-%d %H:%M}", f"{b:%m-%d %H:%M}") for a, b in frame.select("open_at", "close_at").rows()]


def test_new_york_half_day_and_daylight_saving() -> None:
    assert spans("XNYS", date(2024, 11, 27)) == [("11-27 14:30", "11-27 21:00")]
    assert spans("XNYS", date(2024, 11, 29)) == [("11-29 14:30", "11-29 18:00")]  # after Thanksgiving
    assert spans("XNYS", date(2025, 3, 7)) == [("03-07 14:30", "03-07 21:00")]
    assert spans("XNYS", date(2025, 3, 10)) == [("03-10 13:30", "03-10 20:00")]  # clocks went forward


def test_the_new_york_halt_cuts_the_cme_session_in_both_seasons() -> None:
    assert spans("CMES", date(2018, 1, 3), HALT) == [("01-02 23:00", "01-03 22:00")]
    assert spans("CMES", date(2018, 7, 11), HALT) == [("07-10 22:00", "07-11 21:00")]
    assert spans("CMES", date(2018, 1, 3)) == [("01-02 23:00", "01-03 23:00")]


def test_a_lunch_break_ends_a_session() -> None:
    assert spans("XHKG", date(2018, 11, 14)) == [
        ("11-14 01:30", "11-14 04:00"),
        ("11-14 05:00", "11-14 08:00"),
    ]


def test_a_halt_in_the_middle_makes_two_sessions() -> None:
    assert spans("XNYS", date(2024, 11, 27), ("12:00–12:30 America/New_York",)) == [
        ("11-27 14:30", "11-27 17:00"),
        ("11-27 17:30", "11-27 21:00"),
    ]


def test_locate_includes_the_open_and_excludes_the_close() -> None:
    sessions = trading_sessions("XNYS", date(2024, 11, 29), date(2024, 11, 29))
    times = [datetime(2024, 11, 29, h, m, tzinfo=UTC) for h, m in ((14, 29), (14, 30), (17, 59), (18, 0))]
    for unit in ("ms", "us", "ns"):
        found = sessions.locate(pl.Series(times, dtype=pl.Datetime(unit, "UTC")))  # type: ignore[arg-type]
        assert found[0] == -1
        assert found[1] == found[2] >= 0
        assert found[3] == -1
    before_all = pl.Series([datetime(1999, 1, 1, tzinfo=UTC)], dtype=pl.Datetime("us", "UTC"))
    assert sessions.locate(before_all).tolist() == [-1]


def test_minutes_counts_bar_opens_inside_sessions() -> None:
    sessions = trading_sessions("XNYS", date(2024, 11, 25), date(2024, 11, 29))
    week = datetime(2024, 11, 25, tzinfo=UTC), datetime(2024, 11, 30, tzinfo=UTC)
    assert sessions.minutes(*week) == 3 * 390 + 210  # Thanksgiving closed, Friday short
    assert sessions.minutes(*week, interval_minutes=30) == 3 * 13 + 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("17-18 New_York", "required: 'HH:MM-HH:MM Zone/Name'"),
        ("17:00-18:00 Mars/Base", "Mars/Base"),
        ("25:00-26:00 UTC", "hour must be in"),
        ("18:00-17:00 UTC", "the start before the end"),
    ],
)
def test_a_wrong_break_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_break(text)


def test_an_unknown_calendar_and_unreachable_dates_are_refused() -> None:
    with pytest.raises(SettingsError, match="'XXXX' is not a calendar"):
        trading_sessions("XXXX", date(2024, 1, 1), date(2024, 1, 2))
    with pytest.raises(SettingsError, match="XKRX cannot be built for 1900"):
        trading_sessions("XKRX", date(1900, 1, 8), date(1900, 1, 9))


@pytest.mark.parametrize(
    ("market", "message"),
    [
        ({"calendar": "XXXX"}, "market.calendar: 'XXXX' is not a calendar"),
        ({"calendar": "all"}, "market.calendar: 'all' is not a calendar"),
        ({"decision_hours": "NYSE time"}, "market.decision_hours: 'NYSE time' is not a calendar"),
        ({"breaks": ["noon"]}, "market.breaks: got 'noon'"),
    ],
)
def test_a_wrong_market_is_refused_before_any_work(market: dict[str, object], message: str) -> None:
    check_market(MarketSettings(decision_hours="XNYS"))
    with pytest.raises(SettingsError, match=message):
        check_market(MarketSettings.model_validate(market))
