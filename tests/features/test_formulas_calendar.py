"""Calendar and session features against the standard library's calendar and loops over the session."""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.sessions import trading_sessions
from marketray.settings import FeatureSettings
from tests.features.market import sessions_of
from tests.features.quoted import BARS, C, H, L, assert_formula, rows, still_row

DECISIONS = [at + timedelta(minutes=1) for at in BARS["time"].to_list()]
SESSION = sessions_of(BARS["time"]).locate(BARS["time"])
CLOCK = build_catalog(FeatureSettings(groups=("calendar",)), ("time", "open", "high", "low", "close"))


def wave(function: Callable[[float], float], count: Callable[[datetime], int], length: int) -> np.ndarray:
    return np.array([function(2 * np.pi * count(at) / length) for at in DECISIONS])


def by_decision(value: Callable[[datetime], float]) -> np.ndarray:
    return np.array([float(value(at)) for at in DECISIONS])


def extremes() -> tuple[np.ndarray, np.ndarray]:
    high, low = np.empty(len(C)), np.empty(len(C))
    for number in np.unique(SESSION):
        within = number == SESSION
        high[within], low[within] = np.maximum.accumulate(H[within]), np.minimum.accumulate(L[within])
    return high, low


def progress() -> np.ndarray:
    frame = sessions_of(BARS["time"]).frame
    opened, closed = frame["open_at"].to_list(), frame["close_at"].to_list()
    return np.array(
        [
            (at - opened[s]) / (closed[s] - opened[s]) if s >= 0 else np.nan
            for at, s in zip(DECISIONS, SESSION, strict=True)
        ]
    )


HIGH, LOW = extremes()
FORMULAS: dict[str, Callable[[], np.ndarray]] = {
    "dow_sin": lambda: wave(np.sin, datetime.weekday, 7),
    "dow_cos": lambda: wave(np.cos, datetime.weekday, 7),
    "month_sin": lambda: wave(np.sin, lambda at: at.month - 1, 12),
    "month_cos": lambda: wave(np.cos, lambda at: at.month - 1, 12),
    "minute_sin": lambda: wave(np.sin, lambda at: at.minute, 60),
    "minute_cos": lambda: wave(np.cos, lambda at: at.minute, 60),
    "is_monday": lambda: by_decision(lambda at: at.strftime("%a") == "Mon"),
    "is_friday": lambda: by_decision(lambda at: at.strftime("%a") == "Fri"),
    "quarter": lambda: by_decision(lambda at: (at.month + 2) // 3),
    "day_of_month_share": lambda: by_decision(lambda at: at.day / calendar.monthrange(at.year, at.month)[1]),
    **{
        f"is_us_{name}": lambda name=name: by_decision(lambda at: phase(at) == name)
        for name in ("premarket", "regular", "afterhours")
    },
    "session_progress": progress,
    "return_from_session_high": lambda: C / HIGH - 1,
    "return_from_session_low": lambda: C / LOW - 1,
    "session_range_position": lambda: (C - LOW) / (HIGH - LOW),
    "is_session_open_30": lambda: (rows()["minutes_since_open"].to_numpy() < 31).astype(float),
    "is_session_close_30": lambda: (rows()["minutes_to_close"].to_numpy() < 30).astype(float),
}


def phase(at: datetime) -> str:
    local = at.astimezone(ZoneInfo("America/New_York"))
    clock = f"{local:%H:%M}"
    if local.weekday() > 4 or not "04:00" <= clock < "20:00":
        return "none"
    return "premarket" if clock < "09:30" else "regular" if clock < "16:00" else "afterhours"


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    assert_formula(name, FORMULAS[name]())


def clock_row(decision: datetime) -> dict[str, float]:
    """Calendar features of one bar that ends at `decision`."""
    time = pl.Series("time", [decision - timedelta(minutes=1)], dtype=pl.Datetime("us", "UTC"))
    bar = pl.DataFrame({"time": time, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0})
    return compute(CLOCK, bar, sessions_of(time)).row(0, named=True)


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (datetime(2024, 3, 8, 14, 29, tzinfo=UTC), "premarket"),  # winter time: opens 14:30 UTC
        (datetime(2024, 3, 8, 14, 30, tzinfo=UTC), "regular"),
        (datetime(2024, 3, 11, 13, 29, tzinfo=UTC), "premarket"),  # summer time: opens 13:30 UTC
        (datetime(2024, 3, 11, 13, 30, tzinfo=UTC), "regular"),
        (datetime(2024, 3, 11, 20, 0, tzinfo=UTC), "afterhours"),
        (datetime(2024, 3, 12, 0, 0, tzinfo=UTC), None),  # 20:00 of the day before
        (datetime(2024, 3, 11, 8, 0, tzinfo=UTC), "premarket"),
        (datetime(2024, 3, 11, 7, 59, tzinfo=UTC), None),
        (datetime(2024, 3, 10, 18, 0, tzinfo=UTC), None),  # Sunday
        (datetime(2024, 11, 4, 14, 30, tzinfo=UTC), "regular"),  # winter time again
        (datetime(1969, 7, 21, 14, 0, tzinfo=UTC), "regular"),  # a Monday before the epoch
    ],
)
def test_phases_of_the_new_york_day(decision: datetime, expected: str | None) -> None:
    row = clock_row(decision)
    assert {name for name in ("premarket", "regular", "afterhours") if row[f"is_us_{name}"]} == (
        {expected} if expected else set()
    )


def test_the_calendar_counts_from_the_decision_not_from_the_open() -> None:
    row = clock_row(datetime(2024, 7, 1, tzinfo=UTC))  # the bar opened on Sunday, 30 June
    assert (row["is_monday"], row["quarter"]) == (1.0, 3.0)
    assert row["day_of_month_share"] == 1 / 31


def test_the_first_and_the_last_half_hour_hold_thirty_bars_each() -> None:
    opened = datetime(2024, 3, 12, 13, 30, tzinfo=UTC)
    times = pl.Series("time", [opened + timedelta(minutes=i - 5) for i in range(400)])
    bars = pl.DataFrame({"time": times.dt.cast_time_unit("us")}).with_columns(
        **dict.fromkeys(("open", "high", "low", "close"), pl.lit(1.0))
    )
    catalog = build_catalog(FeatureSettings(groups=("session",)), bars.columns)
    found = compute(catalog, bars, trading_sessions("XNYS", opened.date(), opened.date()))
    assert found["is_session_open_30"].to_list()[5:36] == [1.0] * 30 + [0.0]
    assert found["is_session_close_30"].to_list()[364:395] == [0.0] + [1.0] * 30
    outside = found.head(5).select("is_session_open_30", "is_session_close_30", "session_progress")
    assert outside.null_count().row(0) == (5, 5, 5)
    assert found["session_progress"][394] == 1.0


def test_still_bars() -> None:
    row = still_row()
    assert (row["return_from_session_high"], row["return_from_session_low"]) == (0.0, 0.0)
    assert row["session_range_position"] == 0.5
