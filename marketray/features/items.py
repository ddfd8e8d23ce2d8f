"""How the work is cut: time ranges of bars with the halo that their first rows need.

A month is one possible cut; any other gives the same features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from marketray.errors import DataError
from marketray.hashing import digest
from marketray.sentiment.store import months_between
from marketray.settings import MarketSettings

__all__ = ["BarMonth", "TimeRange", "WorkItem", "batches", "hours", "month_ranges", "plan_items", "stage_key"]


@dataclass(frozen=True)
class BarMonth:
    """A stored month of bars: "YYYY-MM" (UTC), its row count and the digest of its rows."""

    month: str
    rows: int
    content: str

    @cached_property
    def start(self) -> datetime:
        """Start of the month, UTC."""
        return datetime.strptime(self.month, "%Y-%m").replace(tzinfo=UTC)

    @cached_property
    def end(self) -> datetime:
        """Start of the next month, UTC."""
        start = self.start
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


@dataclass(frozen=True)
class TimeRange:
    """Bars with start <= time < end (UTC), stored as the partition `level`=`label`."""

    level: str
    label: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class WorkItem:
    """One task: a time range, the months to read for it and its halo, and the key of its result.

    Attributes
    ----------
    span:
        The rows to write.
    months:
        Months to read, in order: those of the range, and enough before it for the halo.
    news:
        Months of scored articles that its decisions can know; empty where no feature needs them.
    from_start:
        The first of these months is the first of the instrument's history, so that there is no
        earlier bar to miss.
    key:
        Digest of the inputs, the settings and the code.
    """

    instrument: str
    span: TimeRange
    months: tuple[str, ...]
    news: tuple[str, ...]
    from_start: bool
    key: str

    @property
    def partition(self) -> dict[str, str]:
        """Partition that the result is stored as."""
        return {"instrument": self.instrument, self.span.level: self.span.label}


def hours(market: MarketSettings) -> dict[str, Any]:
    """What of the market settings the features depend on: the calendar and its breaks."""
    return market.model_dump(mode="json", include={"calendar", "breaks"})


def stage_key(
    catalog_hash: str,
    market: MarketSettings,
    contents: Sequence[str | None],
    news: Mapping[str, str] | None = None,
) -> str:
    """Digest of what all stored features of an instrument were made of.

    `contents` are its bars by month, `news` its scored articles by month where a feature needs them.
    """
    return digest(catalog_hash, hours(market), list(contents), *([dict(news)] if news else []))


def month_ranges(months: Sequence[BarMonth]) -> list[TimeRange]:
    """One range a month."""
    return [TimeRange("month", m.month, m.start, m.end) for m in months]


def batches(items: Sequence[WorkItem], bars: Mapping[str, int], most: int) -> list[list[WorkItem]]:
    """Put adjacent ranges of one instrument together, for one task to read and compute at once.

    Parameters
    ----------
    items:
        Of one instrument, in time order.
    bars:
        How many bars a range has, by its label.
    most:
        Bars of a batch, halo not counted; a range with more is a batch of its own.
    """
    found: list[list[WorkItem]] = []
    size = 0
    for item in items:
        size += bars[item.span.label]
        if found and size <= most and found[-1][-1].span.end == item.span.start:
            found[-1].append(item)
        else:
            found.append([item])
            size = bars[item.span.label]
    return found


def plan_items(
    instrument: str,
    months: Sequence[BarMonth],
    ranges: Sequence[TimeRange],
    lookback: int,
    recipe: str,
    news: Mapping[str, str] | None = None,
) -> list[WorkItem]:
    """One work item a range, each with the shortest run of months that holds its halo.

    Parameters
    ----------
    months:
        All stored months of the instrument, in time order.
    lookback:
        Bars that a feature may depend on, its own included: lookback - 1 must lie before the range.
    recipe:
        Digest of everything but the bars and the news that decides the result.
    news:
        Digest of the scored articles by month; None where no feature needs them.

    Raises
    ------
    DataError
        A range covers no stored month.
    """
    items = []
    for span in ranges:
        own = [i for i, m in enumerate(months) if m.start < span.end and m.end > span.start]
        if not own:
            msg = f"features: no bars of {instrument} are stored for {span.start:%F %R} to {span.end:%F %R}"
            raise DataError(msg, hint="run the ingest stage for these dates first")
        first, before = own[0], 0
        while first > 0 and before < lookback - 1:
            first -= 1
            before += months[first].rows
        read = months[first : own[-1] + 1]
        known = months_between(news or {}, read[0].start, span.end)
        inputs = [[m.month, m.content] for m in read] + [[month, (news or {})[month]] for month in known]
        key = digest(recipe, inputs, span.start.isoformat(), span.end.isoformat(), first == 0)
        items.append(WorkItem(instrument, span, tuple(m.month for m in read), known, first == 0, key))
    return items
