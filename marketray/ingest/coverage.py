"""Which bars the calendar expects and which are there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from marketray.bars import DAY_MINUTES
from marketray.sessions import locate_bars, trading_sessions

__all__ = ["Coverage", "SessionIndex"]

Int64Array = npt.NDArray[np.int64]

_MINUTE_US = 60_000_000
_SHOWN = 10


class SessionIndex:
    """Sessions of a calendar for times that are not known beforehand, built year by year.

    Parameters
    ----------
    calendar, breaks:
        As for `marketray.sessions.trading_sessions`.
    """

    def __init__(self, calendar: str, breaks: tuple[str, ...]) -> None:
        self._calendar, self._breaks = calendar, breaks
        self._years: set[int] = set()
        self._open_us: Int64Array = np.empty(0, np.int64)
        self._close_us: Int64Array = np.empty(0, np.int64)

    def locate(self, times_us: Int64Array, interval_minutes: int = 1) -> Int64Array:
        """Open of each bar's session (`marketray.sessions.locate_bars`), -1 outside; shape (n,), us UTC."""
        if not len(times_us):
            return np.empty(0, np.int64)
        self._build(_year(int(times_us.min())), _year(int(times_us.max())))
        position = locate_bars(times_us, self._open_us, self._close_us, interval_minutes)
        return np.where(position >= 0, self._open_us[np.maximum(position, 0)], -1)

    def between(self, start_us: int, end_us: int) -> tuple[Int64Array, Int64Array]:
        """Opens and closes of the sessions that reach into [start, end), us UTC."""
        self._build(_year(start_us), _year(end_us))
        inside = (self._close_us > start_us) & (self._open_us < end_us)
        return self._open_us[inside], self._close_us[inside]

    def _build(self, first: int, last: int) -> None:
        for year in range(first, last + 1):
            if year in self._years:
                continue
            built = trading_sessions(self._calendar, date(year, 1, 1), date(year, 12, 31), self._breaks)
            opened = np.concatenate([self._open_us, built.open_us])
            closed = np.concatenate([self._close_us, built.close_us])
            self._open_us, first_of = np.unique(opened, return_index=True)
            self._close_us = closed[first_of]
            self._years.add(year)


@dataclass
class Coverage:
    """Counts bars against the calendar as they come.

    Attributes
    ----------
    inside, outside:
        Bars inside and outside sessions. Those outside are kept: they get no label.
    overlapping:
        Bars that open before the one before them has ended.
    """

    sessions: SessionIndex
    interval_minutes: int
    inside: int = 0
    outside: int = 0
    overlapping: int = 0
    _last_us: int | None = None
    _by_month: Counter[str] = field(default_factory=Counter)
    _with_bars: set[int] = field(default_factory=set)

    def add(self, times_us: Int64Array) -> None:
        """Count accepted bars, given by their opens (us UTC, sorted)."""
        if not len(times_us):
            return
        before = times_us[:1] if self._last_us is None else np.array([self._last_us])
        gaps = np.diff(times_us, prepend=before)[self._last_us is None :]
        self.overlapping += int((gaps < self.interval_minutes * _MINUTE_US).sum())
        self._last_us = int(times_us[-1])
        opens = self.sessions.locate(times_us, self.interval_minutes)
        inside = opens >= 0
        self.inside += int(inside.sum())
        self.outside += int((~inside).sum())
        stamps = opens if self.interval_minutes >= DAY_MINUTES else times_us
        self._by_month.update(_months(stamps[inside]).tolist())
        self._with_bars.update(np.unique(opens[inside]).tolist())

    def summary(self, start_us: int, end_us: int) -> dict[str, Any]:
        """What the calendar expects in [start, end) beside what was counted.

        Returns
        -------
        dict
            expected, observed, share (null where nothing is expected), outside_sessions, overlapping,
            sessions_without_bars (how many, and the first dates), lowest_months (month and share).
        """
        opened, closed = self._sessions_between(start_us, end_us)
        step = self.interval_minutes * _MINUTE_US
        offset = np.maximum(start_us - opened, 0) // step * step  # bars before the first are not expected
        lengths = -(-np.maximum(np.minimum(closed, end_us) - opened - offset, 0) // step)
        expected = int(lengths.sum())
        by_month: Counter[str] = Counter()
        for first, offset_us, count in zip(opened, offset, lengths, strict=True):
            bars = first + offset_us + step * np.arange(count)
            by_month.update(_months(bars).tolist())
        shares = [[m, round(self._by_month[m] / n, 4)] for m, n in by_month.items()]
        empty = [s for s, n in zip(opened.tolist(), lengths, strict=True) if n and s not in self._with_bars]
        return {
            "expected": expected,
            "observed": self.inside,
            "share": round(self.inside / expected, 6) if expected else None,
            "outside_sessions": self.outside,
            "overlapping": self.overlapping,
            "sessions_without_bars": len(empty),
            "first_sessions_without_bars": [_moment(s).isoformat() for s in empty[:_SHOWN]],
            "lowest_months": sorted(shares, key=lambda item: (item[1], item[0]))[:_SHOWN],
        }

    def _sessions_between(self, start_us: int, end_us: int) -> tuple[Int64Array, Int64Array]:
        """Sessions of which bars are expected; of daily bars those that are the last to close in a day."""
        opened, closed = self.sessions.between(start_us, end_us)
        if self.interval_minutes < DAY_MINUTES:
            return opened, closed
        day = (closed - start_us - 1) // (DAY_MINUTES * _MINUTE_US)
        last = (np.diff(day, append=day[-1:] + 1) > 0) & (closed <= end_us)
        return opened[last], closed[last]


def _months(times_us: Int64Array) -> npt.NDArray[np.str_]:
    return times_us.view("datetime64[us]").astype("datetime64[M]").astype(str)


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


def _year(us: int) -> int:
    return int(np.int64(us).astype("datetime64[us]").astype("datetime64[Y]").astype(int)) + 1970
