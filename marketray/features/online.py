"""The online feature state: one bar in, one feature row out, equal to the row of the batch.

The state is the last bars and nothing else, as many as the catalog looks back. No running sum is kept,
so nothing drifts, and a state that was restored from the lake goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import polars as pl

from marketray.errors import DataError
from marketray.features.row import FeatureRow, RowPlan
from marketray.features.tail import OPTIONAL_COLUMNS, bar_schema, read_tail
from marketray.ingest.quality import row_reasons
from marketray.sentiment.signals import MAX_AGE_MINUTES, NEWS_SCHEMA, check_news
from marketray.sentiment.store import months_between, news_contents, read_news
from marketray.sessions import month_sessions

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog
    from marketray.lake import Lake
    from marketray.settings import MarketSettings

__all__ = ["OnlineState", "Refusal"]

_REQUIRED = {
    "non_positive_price": "prices above 0",
    "ohlc_inconsistent": "low <= open, close <= high",
    "negative_volume": "a volume of at least 0",
    "non_positive_quote": "bid and ask above 0",
    "crossed_quote": "bid <= ask",
    "negative_size": "sizes of at least 0",
}


@dataclass(frozen=True)
class Refusal:
    """Why a bar is not taken: the rule's name (see `OnlineState.refusal`), and the sentence for people."""

    reason: str
    message: str


class OnlineState:
    """The last `catalog.lookback` bars of one instrument, and the feature row of each new one.

    A new state stands at the start of the instrument's history: a feature is missing until as many bars
    as it looks back have been appended. `from_bars` and `from_lake` start from bars that are known.

    Not thread-safe. It cannot be pickled: it is restored from the lake.

    Parameters
    ----------
    catalog:
        The features.
    market:
        Calendar and breaks. The calendar is built for whole months, when the bars reach a new one.
    outside_sessions:
        What to do with a bar that opens outside all sessions: "refuse" it, or "keep" it as the ingest
        does, for a feed whose every bar also enters the lake. The features of the batch see all bars of
        the lake, and so do those of a state restored from it, whatever is chosen here.
    """

    def __init__(
        self,
        catalog: Catalog,
        market: MarketSettings,
        *,
        outside_sessions: Literal["refuse", "keep"] = "refuse",
    ) -> None:
        self.catalog = catalog
        self.market = market
        self._outside = outside_sessions
        self._plan = RowPlan.of(catalog)
        self._interval = timedelta(minutes=catalog.interval_minutes)
        self._schema = {name: dtype for name, dtype in bar_schema().items() if name in catalog.columns}
        self._bars = pl.DataFrame(schema=self._schema)
        self._news = pl.DataFrame(schema=NEWS_SCHEMA)
        self._row: FeatureRow | None = None

    @classmethod
    def from_bars(
        cls,
        catalog: Catalog,
        market: MarketSettings,
        bars: pl.DataFrame,
        *,
        news: pl.DataFrame | None = None,
        from_start: bool = False,
        outside_sessions: Literal["refuse", "keep"] = "refuse",
    ) -> OnlineState:
        """A state that stands at the end of `bars`.

        Parameters
        ----------
        bars:
            As for `marketray.features.kernel.compute`; the last `catalog.lookback` are kept.
        news:
            Scored articles known so far (`marketray.sentiment.signals.NEWS_SCHEMA`), in time order, the
            first of all among them; they matter where the catalog has news features.
        from_start:
            The bars begin where the instrument's history begins, so that fewer are right.

        Raises
        ------
        DataError
            There are fewer bars than the lookback, a column is missing, or the times do not increase.
        SettingsError
            The calendar is unknown or does not reach the dates.
        """
        if bars.height < catalog.lookback and not from_start:
            msg = f"bars: got {bars.height}; required: the last {catalog.lookback} (the catalog's lookback)"
            raise DataError(msg, hint="pass a longer history, or say that it begins with these bars")
        state = cls(catalog, market, outside_sessions=outside_sessions)
        if news is not None:
            state._news = news.select(list(NEWS_SCHEMA))
        if not bars.is_empty():
            missing = [name for name in state._schema if name not in bars.columns]
            if missing:
                msg = f"bars: got the columns {bars.columns}, which lack {missing}"
                raise DataError(msg, hint="pass bars as the lake's bronze/bars holds them")
            values = [pl.col(name).cast(pl.Float64) for name in state._schema if name != "time"]
            state._take(bars.tail(catalog.lookback).select("time", *values))
        return state

    @classmethod
    def from_lake(
        cls,
        catalog: Catalog,
        market: MarketSettings,
        lake: Lake,
        instrument: str,
        *,
        until: datetime | None = None,
        outside_sessions: Literal["refuse", "keep"] = "refuse",
    ) -> OnlineState:
        """A state that stands at the lake's last bar of `instrument`; empty where the lake has none.

        Only as many months are read as the lookback needs. Where the lake holds fewer bars than the
        lookback, they are the whole history, for the batch as here.

        Parameters
        ----------
        until:
            Leave out bars that end after this time, tz-aware; None takes all.

        Raises
        ------
        LakeError
            The lake cannot be read.
        DataError, SettingsError
            As `from_bars`.
        """
        interval = timedelta(minutes=catalog.interval_minutes)
        bars = read_tail(lake, instrument, catalog.lookback, interval=interval, until=until)
        news = None
        if catalog.news_columns and not bars.is_empty():
            months = months_between(news_contents(lake, instrument), bars["time"][0])
            news = read_news(lake, instrument, months)
        return cls.from_bars(
            catalog, market, bars, news=news, from_start=True, outside_sessions=outside_sessions
        )

    @property
    def row(self) -> FeatureRow | None:
        """Features at the end of the last bar; None before the first."""
        return self._row

    @property
    def bars(self) -> pl.DataFrame:
        """The bars that are kept, sorted by time: at most `catalog.lookback`."""
        return self._bars

    def append(self, bar: Mapping[str, Any], clock: datetime | None) -> FeatureRow:
        """Take the next bar; its features are those that the batch computes for it.

        Parameters
        ----------
        bar:
            ``time`` (open, tz-aware), open, high, low, close, and the optional columns that the catalog
            needs; an optional value may be None where the market had none. Other keys are not read.
        clock:
            The present, tz-aware; None where the data's own end is the clock.

        Raises
        ------
        DataError
            The bar is refused, by a rule of `refusal`. The state is what it was.
        SettingsError
            The calendar does not reach the bar's date. The state is what it was.
        """
        refused = self.refusal(bar, clock)
        if refused is not None:
            raise DataError(refused.message, hint="append bars in time order, each once, after its end")
        new = self._frame(bar)
        self._take(self._bars.tail(self.catalog.lookback - 1).vstack(new).rechunk())
        assert self._row is not None
        return self._row

    def add_news(self, articles: pl.DataFrame) -> int:
        """Take scored articles, for the rows of bars to come; a row that was given does not change.

        Parameters
        ----------
        articles:
            `marketray.sentiment.signals.NEWS_SCHEMA`, in any order, each article once. An article counts
            for decisions after its `available_at`, so one that is yet to become known may be added early.

        Returns
        -------
        int
            How many came late: a row after their `available_at` has been given without them, while the batch
            will count them there.

        Raises
        ------
        DataError
            A column is missing or has a missing value. The state is what it was.
        """
        check_news(articles.sort("available_at"))
        merged = pl.concat([self._news, articles.select(list(NEWS_SCHEMA))])
        self._news = merged.sort("available_at", maintain_order=True)
        if self._row is None:
            return 0
        return int((articles["available_at"] < self._row.decision_at).sum())

    def refusal(self, bar: Mapping[str, Any], clock: datetime | None) -> Refusal | None:
        """Why `append` would refuse `bar`; None where it would take it.

        The first rule that applies is named:

        - ``malformed``: a column is missing, the time has no zone, a value is no finite number;
        - ``future``: the bar ends after `clock`;
        - ``duplicate`` and ``conflicting_duplicate``: it opens with the last bar, with the same or with
          other values;
        - ``late``: it opens before the last bar;
        - ``overlapping``: it opens after the last bar's open and before its end;
        - ``non_positive_price``, ``ohlc_inconsistent``, ``negative_volume``, ``non_positive_quote``,
          ``crossed_quote``, ``negative_size``: as at ingest (`marketray.ingest.quality.row_reasons`);
        - ``outside_session``: it opens outside all sessions, and such bars are not kept.
        """
        return self.refusals([bar], clock)[0]

    def refusals(self, bars: Sequence[Mapping[str, Any]], clock: datetime | None) -> list[Refusal | None]:
        """`refusal` of each of the bars as if those before it that can be taken had been appended."""
        malformed = [self._malformed(bar) for bar in bars]
        readable = [bar for bar, why in zip(bars, malformed, strict=True) if why is None]
        others = iter(self._refusals(readable, clock) if readable else [])
        return [Refusal("malformed", f"bar: malformed: {why}") if why else next(others) for why in malformed]

    def _refusals(self, bars: Sequence[Mapping[str, Any]], clock: datetime | None) -> list[Refusal | None]:
        """`refusals` of bars that are not malformed."""
        table = self._frame(*bars)
        unjudged = table.hstack([pl.Series("reason", [None] * len(bars), pl.String)])
        reasons = row_reasons(unjudged, interval_minutes=self.catalog.interval_minutes)["reason"]
        inside: dict[tuple[int, int], set[datetime]] = {}
        last = None if self._bars.is_empty() else self._bars.row(-1)
        found: list[Refusal | None] = []
        for bar, row, reason in zip(bars, table.rows(), reasons, strict=True):
            refused = self._untimely(bar["time"], row, clock, last) or self._untrue(bar, reason)
            found.append(refused or self._off_session(bar["time"], table["time"], inside))
            last = row if found[-1] is None else last
        return found

    def _malformed(self, bar: Mapping[str, Any]) -> str | None:
        missing = [name for name in self._schema if name not in bar]
        if missing:
            return f"got {sorted(bar)}, which lacks {missing}; required: {list(self._schema)}"
        time = bar["time"]
        if not isinstance(time, datetime) or time.utcoffset() is None:
            return f"got time={time!r}; required: a datetime with its zone"
        for name in self._schema:
            value = bar[name]
            if name == "time" or (value is None and name in OPTIONAL_COLUMNS):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                return f"got {name}={value!r}; required: a finite number"
        return None

    def _untimely(
        self, time: datetime, row: tuple[Any, ...], clock: datetime | None, before: tuple[Any, ...] | None
    ) -> Refusal | None:
        """Refusal by its time of the bar with the values `row` after the one with the values `before`."""
        shown, end = time.isoformat(), time + self._interval
        if clock is not None and end > clock:
            msg = f"bar {shown}: future: it ends at {end.isoformat()}; required: by {clock.isoformat()}"
            return Refusal("future", msg)
        if before is None:
            return None
        last: datetime = before[0]
        if time >= last + self._interval:
            return None
        reason = "late" if time < last else "overlapping"
        if time == last:
            reason = "duplicate" if row == before else "conflicting_duplicate"
        required = (last + self._interval).isoformat()
        return Refusal(reason, f"bar {shown}: {reason}; required: an open at or after {required}")

    def _untrue(self, bar: Mapping[str, Any], reason: str | None) -> Refusal | None:
        if reason is None:
            return None
        got = ", ".join(f"{name}={bar[name]}" for name in self._schema if name != "time")
        shown = bar["time"].isoformat()
        return Refusal(reason, f"bar {shown}: {reason}: got {got}; required: {_REQUIRED[reason]}")

    def _off_session(
        self, time: datetime, times: pl.Series, inside: dict[tuple[int, int], set[datetime]]
    ) -> Refusal | None:
        """Refusal of one of `times` outside all sessions; `inside` takes those within, by month."""
        if self._outside == "keep":
            return None
        day = time.astimezone(UTC).date()
        month = day.year, day.month
        if month not in inside:
            its = times.filter(pl.Series(times.to_numpy().astype("M8[M]") == np.datetime64(day, "M")))
            located = month_sessions(self.market, day, day).locate(its, self.catalog.interval_minutes)
            inside[month] = set(its.filter(pl.Series(located >= 0)))
        if time in inside[month]:
            return None
        required = f"the sessions of {self.market.calendar} without its breaks {list(self.market.breaks)}"
        msg = f"bar {time.isoformat()}: outside_session; required: an open inside {required}"
        return Refusal("outside_session", msg)

    def _frame(self, *bars: Mapping[str, Any]) -> pl.DataFrame:
        """Bars as a table."""
        names = [name for name in self._schema if name != "time"]
        rows = [(bar["time"].astimezone(UTC), *(bar[name] for name in names)) for bar in bars]
        return pl.DataFrame(rows, schema=self._schema, orient="row", strict=False)

    def _take(self, bars: pl.DataFrame) -> None:
        """Make `bars` the state; nothing has changed where their row cannot be computed."""
        first, last = bars["time"][0].date(), bars["time"][-1].date()
        row = self._plan.evaluate(bars, month_sessions(self.market, first, last), self._news)
        forgotten = bars["time"][0] - timedelta(minutes=MAX_AGE_MINUTES)
        old = int((self._news["available_at"] < forgotten).sum())
        if old > 1:  # the first of all stays: it says since when there is news
            self._news = pl.concat([self._news.head(1), self._news.slice(old)])
        self._bars, self._row = bars, row

    def __reduce__(self) -> NoReturn:
        msg = "OnlineState cannot be pickled; required: OnlineState.from_lake where it is needed"
        raise TypeError(msg)
