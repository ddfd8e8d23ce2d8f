"""Trading sessions: an exchange calendar cut at its declared daily breaks, all in UTC.

A session here is one uninterrupted span of trading [open_at, close_at). A calendar's own lunch break
and the breaks of the settings both end a session, since no label and no window of the session may
reach over them.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import exchange_calendars
import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
from exchange_calendars.errors import InvalidCalendarName

from marketray.bars import DAY_MINUTES
from marketray.errors import SettingsError

if TYPE_CHECKING:
    from marketray.settings import MarketSettings

__all__ = [
    "Break",
    "Sessions",
    "check_market",
    "locate_bars",
    "month_sessions",
    "parse_break",
    "trading_sessions",
]

Int64Array = npt.NDArray[np.int64]

_MINUTE_US = 60_000_000
_BREAK = re.compile(r"(\d{2}:\d{2})\s*[-–]\s*(\d{2}:\d{2})\s+(\S+)")


@dataclass(frozen=True)
class Break:
    """A daily halt [start, end) in local time of `zone`."""

    start: time
    end: time
    zone: ZoneInfo


@dataclass(frozen=True)
class Sessions:
    """Sorted, disjoint sessions.

    Attributes
    ----------
    frame:
        Columns session (Int32, 0-based position), session_date (Date, the calendar's label),
        open_at and close_at (Datetime us UTC); one row per session.
    """

    frame: pl.DataFrame

    @cached_property
    def open_us(self) -> Int64Array:
        """Session opens, microseconds since the epoch, UTC."""
        return self.frame["open_at"].to_physical().to_numpy()

    @cached_property
    def close_us(self) -> Int64Array:
        """Session closes, microseconds since the epoch, UTC."""
        return self.frame["close_at"].to_physical().to_numpy()

    def locate(self, times: pl.Series, interval_minutes: int = 1) -> npt.NDArray[np.int32]:
        """Position of each bar's session, by the rule of `locate_bars`; -1 outside all.

        Parameters
        ----------
        times:
            Bar opens, tz-aware UTC datetimes, shape (n,).
        interval_minutes:
            Length of a bar.
        """
        us = times.to_numpy().astype("datetime64[us]").view(np.int64)
        return locate_bars(us, self.open_us, self.close_us, interval_minutes).astype(np.int32)

    def minutes(self, start: datetime, end: datetime, interval_minutes: int = 1) -> int:
        """How many bar opens the sessions hold in [start, end)."""
        lo = np.maximum(self.open_us, int(start.timestamp() * 1e6))
        hi = np.minimum(self.close_us, int(end.timestamp() * 1e6))
        return int((np.maximum(hi - lo, 0) // (interval_minutes * 60_000_000)).sum())


def locate_bars(
    times_us: Int64Array, open_us: Int64Array, close_us: Int64Array, interval_minutes: int
) -> Int64Array:
    """Position of the session that each bar belongs to, -1 for none; shape (n,).

    A bar belongs to the session that holds its open: open <= time < close. A daily bar is a whole session
    and may be stamped before that opens, at midnight: it belongs to the last session that closes in
    (time, time + one day].

    Parameters
    ----------
    times_us:
        Bar opens, us UTC, shape (n,).
    open_us, close_us:
        Sorted, disjoint sessions, us UTC, shape (m,).
    interval_minutes:
        Length of a bar.
    """
    if not len(open_us):
        return np.full(len(times_us), -1, np.int64)
    if interval_minutes < DAY_MINUTES:
        position = np.searchsorted(open_us, times_us, side="right") - 1
    else:
        position = np.searchsorted(close_us, times_us + interval_minutes * _MINUTE_US, side="right") - 1
    inside = (position >= 0) & (times_us < close_us[np.maximum(position, 0)])
    return np.where(inside, position, -1)


def parse_break(text: str) -> Break:
    """Read ``"17:00-18:00 America/New_York"``.

    Raises
    ------
    SettingsError
        The text has another form, names an unknown zone, or ends before it starts.
    """
    match = _BREAK.fullmatch(text.strip())
    if match is None:
        msg = f"market.breaks: got {text!r}; required: 'HH:MM-HH:MM Zone/Name'"
        raise SettingsError(msg, hint="for example '17:00-18:00 America/New_York'")
    try:
        start, end = time.fromisoformat(match[1]), time.fromisoformat(match[2])
        zone = ZoneInfo(match[3])
    except (ValueError, ZoneInfoNotFoundError) as e:
        msg = f"market.breaks: got {text!r}: {e}"
        raise SettingsError(msg, hint="times are 00:00-23:59, zones are IANA names") from e
    if start >= end:
        msg = f"market.breaks: got {text!r}; required: the start before the end, on one day"
        raise SettingsError(msg, hint="write a halt over midnight as two breaks")
    return Break(start, end, zone)


def check_market(market: MarketSettings) -> None:
    """Raise SettingsError where the calendar, the decision hours or a break cannot be what is meant."""
    names = exchange_calendars.get_calendar_names()
    for setting, name in (("calendar", market.calendar), ("decision_hours", market.decision_hours)):
        if name not in names and (setting, name) != ("decision_hours", "all"):
            msg = f"market.{setting}: {name!r} is not a calendar of exchange_calendars"
            raise SettingsError(msg, hint="for example CMES, XNYS, XLON or 24/7")
    for text in market.breaks:
        parse_break(text)


@lru_cache(maxsize=16)
def trading_sessions(calendar: str, start: date, end: date, breaks: tuple[str, ...] = ()) -> Sessions:
    """Sessions of a calendar whose label lies in [start - 7 days, end + 7 days], cut at the breaks.

    Parameters
    ----------
    calendar:
        A name known to exchange_calendars, such as CMES or XNYS.
    start, end:
        First and last date needed; the calendar is built with explicit bounds around them.
    breaks:
        Daily halts, see `parse_break`; each ends the session it falls into.

    Raises
    ------
    SettingsError
        The calendar is unknown or does not reach the dates.
    """
    halts = [parse_break(text) for text in breaks]
    first, last = start - timedelta(days=7), end + timedelta(days=7)
    try:
        built = exchange_calendars.get_calendar(calendar, start=str(first), end=str(last))
    except InvalidCalendarName as e:
        msg = f"market.calendar: {calendar!r} is not a calendar of exchange_calendars"
        raise SettingsError(msg, hint="for example CMES, XNYS, XLON or 24/7") from e
    except ValueError as e:
        msg = f"market.calendar: {calendar} cannot be built for {first} to {last}: {e}"
        raise SettingsError(msg, hint="check the dates of the data") from e
    spans = []
    for row in built.schedule.itertuples():
        opened, closed = row.open.to_pydatetime(), row.close.to_pydatetime()
        cuts = [c for halt in halts for c in _halts_within(halt, opened, closed)]
        if row.break_start is not pd.NaT:
            cuts.append((row.break_start.to_pydatetime(), row.break_end.to_pydatetime()))
        spans += [(row.Index.date(), a, b) for a, b in _subtract(opened, closed, sorted(cuts))]
    frame = pl.DataFrame(
        {
            "session": np.arange(len(spans), dtype=np.int32),
            "session_date": [s[0] for s in spans],
            "open_at": [s[1] for s in spans],
            "close_at": [s[2] for s in spans],
        },
        schema_overrides={
            "session_date": pl.Date,
            "open_at": pl.Datetime("us", "UTC"),
            "close_at": pl.Datetime("us", "UTC"),
        },
    )
    return Sessions(frame)


def month_sessions(market: MarketSettings, first: date, last: date) -> Sessions:
    """Sessions of whole months around two dates, so that later calls find the calendar built.

    Raises
    ------
    SettingsError
        As `trading_sessions`.
    """
    last = last.replace(day=monthrange(last.year, last.month)[1])
    return trading_sessions(market.calendar, first.replace(day=1), last, market.breaks)


def _halts_within(halt: Break, opened: datetime, closed: datetime) -> list[tuple[datetime, datetime]]:
    day, last = opened.astimezone(halt.zone).date(), closed.astimezone(halt.zone).date()
    found = []
    while day <= last:
        start = datetime.combine(day, halt.start, halt.zone).astimezone(opened.tzinfo)
        end = datetime.combine(day, halt.end, halt.zone).astimezone(opened.tzinfo)
        if start < closed and end > opened:
            found.append((start, end))
        day += timedelta(days=1)
    return found


def _subtract(
    opened: datetime, closed: datetime, cuts: list[tuple[datetime, datetime]]
) -> list[tuple[datetime, datetime]]:
    spans, cursor = [], opened
    for start, end in cuts:
        if start > cursor:
            spans.append((cursor, start))
        cursor = max(cursor, end)
    if cursor < closed:
        spans.append((cursor, closed))
    return spans
