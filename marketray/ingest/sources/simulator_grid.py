"""The simulator's minute grid: the sessions of a month, each behind 30 minutes of padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby

import numpy as np
import numpy.typing as npt

from marketray.ingest.sources.simulator_effects import HORIZON_MINUTES
from marketray.sessions import trading_sessions
from marketray.settings import MarketSettings

__all__ = ["LAST_YEAR", "MinuteGrid", "month_grids"]

LAST_YEAR = 2260
"""Calendars count nanoseconds in 64 bits and end in 2262."""

_MINUTE_US = 60_000_000
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MinuteGrid:
    """All minutes of some sessions in time order; each session follows 30 slots of padding.

    Attributes
    ----------
    month:
        "YYYY-MM" in which the sessions open, UTC.
    open_us, close_us, closed_since_us:
        The sessions' bounds and the close before each, microseconds UTC, shape (sessions,).
    first_slot:
        Position of each session's first slot of padding, shape (sessions,).
    time_us, minute, minutes_left:
        Of each slot, shape (slots,): its start, its minute of the session (-30 … -1 in the padding),
        and how many minutes of the session follow it.
    fraction:
        Middle of the minute as a share of the session; the first minute's in the padding.
    """

    month: str
    open_us: Int64Array
    close_us: Int64Array
    closed_since_us: Int64Array
    first_slot: Int64Array
    time_us: Int64Array
    minute: Int64Array
    minutes_left: Int64Array
    fraction: npt.NDArray[np.float64]

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Which slots are minutes of a session, shape (slots,)."""
        return self.minute >= 0


def month_grids(market: MarketSettings, start: date) -> Iterator[MinuteGrid]:
    """Grids of all sessions from the session date `start` on, one for each month in which sessions open.

    Raises
    ------
    SettingsError
        The calendar is unknown, or does not reach `start`.
    """
    for month, rows in groupby(_bounds(market, start), key=_opening_month):
        closed_since, opened, closed = (
            np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)
        )
        yield _grid(month, closed_since, opened, closed)


def _opening_month(bounds: tuple[int, int, int]) -> str:
    return f"{datetime.fromtimestamp(bounds[1] / 1e6, UTC):%Y-%m}"


def _bounds(market: MarketSettings, start: date) -> Iterator[tuple[int, int, int]]:
    """Previous close (the first session: its own open), open and close of each, cut to whole minutes."""
    closed_since: int | None = None
    for year in range(start.year, LAST_YEAR + 1):
        end = date(year, 12, 31)
        begin = max(start, date(year, 1, 1))
        sessions = trading_sessions(market.calendar, begin, end, market.breaks)
        whole = (sessions.close_us - sessions.open_us) // _MINUTE_US * _MINUTE_US
        days = sessions.frame["session_date"].to_list()
        for day, opened, length in zip(days, sessions.open_us.tolist(), whole.tolist(), strict=True):
            if length == 0 or not begin <= day <= end:
                continue
            yield (opened if closed_since is None else closed_since), opened, opened + length
            closed_since = opened + length


def _grid(month: str, closed_since: Int64Array, opened: Int64Array, closed: Int64Array) -> MinuteGrid:
    length = (closed - opened) // _MINUTE_US
    slots = length + HORIZON_MINUTES
    first = np.cumsum(slots) - slots
    minute = np.arange(slots.sum()) - np.repeat(first, slots) - HORIZON_MINUTES
    of = np.repeat(length, slots)
    return MinuteGrid(
        month=month,
        open_us=opened,
        close_us=closed,
        closed_since_us=closed_since,
        first_slot=first,
        time_us=np.repeat(opened, slots) + minute * _MINUTE_US,
        minute=minute,
        minutes_left=of - 1 - minute,
        fraction=(np.maximum(minute, 0) + 0.5) / of,
    )
