"""Expected bars against the calendar, counted by brute force."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from marketray.ingest.coverage import Coverage, SessionIndex
from marketray.sessions import trading_sessions

BREAKS = ("17:00-18:00 America/New_York",)


def us(*moments: datetime) -> np.ndarray:
    return np.array([int(m.timestamp()) * 1_000_000 for m in moments], np.int64)


@pytest.mark.parametrize(
    ("calendar", "breaks", "start", "days"),
    [
        ("XNYS", (), datetime(2019, 11, 26, tzinfo=UTC), 8),  # Thanksgiving and its half day
        ("CMES", BREAKS, datetime(2018, 3, 8, tzinfo=UTC), 7),  # clocks go forward
        ("CMES", BREAKS, datetime(2018, 12, 28, 12, 17, tzinfo=UTC), 8),  # over the year's end
    ],
)
def test_expected_bars_are_the_minutes_inside_sessions(
    calendar: str, breaks: tuple[str, ...], start: datetime, days: int
) -> None:
    every = [start + timedelta(minutes=i) for i in range(days * 1_440)]
    sessions = trading_sessions(calendar, start.date(), (start + timedelta(days=days)).date(), breaks)
    inside = sessions.locate(pl.Series(every, dtype=pl.Datetime("us", "UTC"))) >= 0
    coverage = Coverage(SessionIndex(calendar, breaks), 1)
    times = us(*every)
    coverage.add(times[: len(times) // 2])
    coverage.add(times[len(times) // 2 :])
    found = coverage.summary(int(times[0]), int(times[-1]) + 60_000_000)
    assert found["expected"] == found["observed"] == int(inside.sum())
    assert found["outside_sessions"] == int((~inside).sum())
    assert (found["share"], found["sessions_without_bars"]) == (1.0, 0)


def test_what_is_missing_is_named() -> None:
    coverage = Coverage(SessionIndex("XNYS", ()), 1)
    opened = datetime(2024, 1, 30, 14, 30, tzinfo=UTC)
    first = us(*(opened + timedelta(minutes=i) for i in range(390)))
    third = us(*(opened + timedelta(days=2, minutes=i) for i in range(0, 390, 2)))
    coverage.add(first)
    coverage.add(third)
    found = coverage.summary(int(first[0]), int(third[-1]) + 60_000_000)
    assert (found["expected"], found["observed"]) == (3 * 390 - 1, 390 + 195)
    assert found["sessions_without_bars"] == 1
    assert found["first_sessions_without_bars"] == ["2024-01-31T14:30:00+00:00"]
    assert found["lowest_months"] == [["2024-01", 0.5], ["2024-02", round(195 / 389, 4)]]


def test_hours_that_start_at_half_past_fill_a_session_of_six_and_a_half_hours() -> None:
    opened = datetime(2024, 1, 30, 14, 30, tzinfo=UTC)
    coverage = Coverage(SessionIndex("XNYS", ()), 60)
    times = us(*(opened + timedelta(days=d, hours=h) for d in range(3) for h in range(7)))
    coverage.add(times)
    found = coverage.summary(int(times[0]), int(times[-1]) + 3_600_000_000)
    assert (found["expected"], found["observed"], found["share"]) == (21, 21, 1.0)


def test_no_session_means_no_share() -> None:
    coverage = Coverage(SessionIndex("XNYS", ()), 1)
    saturday = us(datetime(2024, 1, 27, tzinfo=UTC))
    coverage.add(saturday)
    found = coverage.summary(int(saturday[0]), int(saturday[0]) + 60_000_000)
    assert (found["expected"], found["share"], found["outside_sessions"]) == (0, None, 1)


def test_the_index_agrees_with_the_sessions_of_the_whole_span() -> None:
    index = SessionIndex("CMES", BREAKS)
    sessions = trading_sessions("CMES", date(2017, 1, 1), date(2020, 12, 31), BREAKS)
    rng = np.random.default_rng(5)
    low, high = us(datetime(2017, 1, 2, tzinfo=UTC), datetime(2020, 12, 30, tzinfo=UTC))
    times = np.sort(rng.integers(low, high, 20_000))
    position = sessions.locate(pl.Series(times).cast(pl.Datetime("us", "UTC")))
    expected = np.where(position >= 0, sessions.open_us[np.maximum(position, 0)], -1)
    for part in (times[15_000:], times[:5_000], times):  # years are built in any order
        assert np.array_equal(index.locate(part), expected[np.isin(times, part)])
    assert len(index.locate(times[:0])) == 0
