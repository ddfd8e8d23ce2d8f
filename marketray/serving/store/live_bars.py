"""Bars that arrived while the service runs, each once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

import polars as pl
from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select

from marketray.bars import COLUMNS, PRICES
from marketray.errors import StoreError
from marketray.features.tail import bar_schema
from marketray.serving.store.database import Database
from marketray.serving.store.tables import BARS

__all__ = ["Appended", "ConflictingBarError", "LiveBars"]

_MOST = 10_000
_TIMES = 1_000  # of one query


class ConflictingBarError(StoreError):
    """Another bar stands at this time already."""


class Appended(TypedDict):
    """How many bars were new, and how many stood there already with the same values."""

    taken: int
    known: int


class LiveBars:
    """The live bars in `database`; tables of bars have the columns `marketray.bars.COLUMNS`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, instrument: str, bars: pl.DataFrame) -> Appended:
        """Add bars, all or, where one is refused, none.

        Parameters
        ----------
        bars:
            `time` (the open; a time with zone) and the prices, and what the market has of the other
            columns of a bar; one that is left out is null. NaN is null.

        Raises
        ------
        ConflictingBarError
            A bar differs from the one that stands at its time, or from another one among `bars`.
        StoreError
            A column is unknown or missing, a time has no zone, or a time or price is null.
        """
        given = _complete(bars)
        once = given.unique()
        with self._database.writing("adding live bars", BARS) as connection:
            stored = self._between(connection, instrument, once)
            _refuse_conflicts(instrument, once, stored)
            new = once.join(stored, on="time", how="anti").sort("time")
            rows = [{"instrument": instrument, **row} for row in new.to_dicts()]
            if rows:
                connection.execute(insert(BARS), rows)
        return {"taken": len(new), "known": len(given) - len(new)}

    def since(self, instrument: str, time: datetime | None = None, limit: int = _MOST) -> pl.DataFrame:
        """The first `limit` bars whose open is after `time`, sorted by time."""
        query = _bars_of(instrument).order_by(BARS.c.time).limit(limit)
        if time is not None:
            query = query.where(BARS.c.time > time)
        with self._database.reading("reading live bars") as connection:
            return _table(connection, query)

    def newest(
        self, instrument: str, limit: int, *, after: datetime | None = None, until: datetime | None = None
    ) -> pl.DataFrame:
        """The last `limit` bars whose open lies in (after, until], sorted by time."""
        query = _bars_of(instrument).where(*_opens_in(after, until)).order_by(BARS.c.time.desc()).limit(limit)
        with self._database.reading("reading live bars") as connection:
            return _table(connection, query).reverse()

    def count(self, instrument: str, *, after: datetime | None = None, until: datetime | None = None) -> int:
        """Number of bars whose open lies in (after, until]."""
        wanted = (BARS.c.instrument == instrument, *_opens_in(after, until))
        with self._database.reading("reading live bars") as connection:
            return connection.execute(select(func.count()).select_from(BARS).where(*wanted)).scalar_one()

    def arrivals(self, instrument: str, after: int = 0, limit: int = _MOST) -> tuple[pl.DataFrame, int]:
        """Bars in the order in which they arrived, with the number to go on from.

        A bar that arrives late, with newer ones there, is among them; `since` the newest time would miss
        it. Start with ``after=0``, then give the number that came with the last call.
        """
        query = _bars_of(instrument).where(BARS.c.arrival > after).order_by(BARS.c.arrival).limit(limit)
        with self._database.reading("reading live bars") as connection:
            last = connection.execute(select(func.max(query.subquery().c.arrival))).scalar()
            if last is None:
                return _table(connection, query), after
            return _table(connection, query.where(BARS.c.arrival <= last)), last

    def at(self, instrument: str, times: Sequence[datetime]) -> pl.DataFrame:
        """The bars that open at these times, in any order."""
        with self._database.reading("reading live bars") as connection:
            parts = [
                _table(connection, _bars_of(instrument).where(BARS.c.time.in_(times[i : i + _TIMES])))
                for i in range(0, len(times), _TIMES)
            ]
        return pl.concat([pl.DataFrame(schema=bar_schema()), *parts])

    def last(self, instrument: str) -> datetime | None:
        """Open of the newest bar, UTC; None where there is no bar."""
        query = select(func.max(BARS.c.time)).where(BARS.c.instrument == instrument)
        with self._database.reading("reading live bars") as connection:
            return connection.execute(query).scalar()

    def prune(self, before: datetime, instrument: str | None = None) -> int:
        """Delete bars whose open is before this time, by default of all instruments; how many there were."""
        old = delete(BARS).where(BARS.c.time < before)
        if instrument is not None:
            old = old.where(BARS.c.instrument == instrument)
        with self._database.writing("deleting old live bars") as connection:
            return connection.execute(old).rowcount

    def _between(self, connection: Connection, instrument: str, bars: pl.DataFrame) -> pl.DataFrame:
        """The stored bars of the time that `bars` span."""
        first, last = bars["time"].min(), bars["time"].max()
        return _table(connection, _bars_of(instrument).where(BARS.c.time.between(first, last)))


def _bars_of(instrument: str) -> Select[tuple[object, ...]]:
    return select(BARS).where(BARS.c.instrument == instrument)


def _opens_in(after: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    bounds = [None if after is None else BARS.c.time > after, None if until is None else BARS.c.time <= until]
    return [bound for bound in bounds if bound is not None]


def _table(connection: Connection, query: Select[tuple[object, ...]]) -> pl.DataFrame:
    rows = connection.execute(query.with_only_columns(*(BARS.c[name] for name in COLUMNS)))
    return pl.DataFrame(list(map(tuple, rows)), schema=bar_schema(), orient="row")


def _complete(bars: pl.DataFrame) -> pl.DataFrame:
    """`bars` with all columns of a bar, in their order and of their types."""
    schema = bar_schema()
    unknown, missing = set(bars.columns) - set(schema), {"time", *PRICES} - set(bars.columns)
    if unknown or missing:
        msg = f"bars: got the columns {bars.columns}; required: time and {list(PRICES)}, of {list(schema)}"
        raise StoreError(msg, hint="name the columns as ingest does")
    time = bars.schema["time"]
    if not isinstance(time, pl.Datetime) or time.time_zone is None:
        msg = f"bars: time is {time}; required: times with zone"
        raise StoreError(msg, hint="say in which zone the times are, e.g. with dt.replace_time_zone")
    absent = [pl.lit(None).alias(name) for name in schema if name not in bars.columns]
    typed = bars.with_columns(absent).select(pl.col(name).cast(kind) for name, kind in schema.items())
    typed = typed.with_columns(pl.col(pl.Float64).fill_nan(None))
    nulls = [name for name in ("time", *PRICES) if typed[name].null_count()]
    if nulls:
        msg = f"bars: {nulls} have nulls; required: a time and four prices in every bar"
        raise StoreError(msg, hint="leave out bars that are not whole")
    return typed


def _refuse_conflicts(instrument: str, bars: pl.DataFrame, stored: pl.DataFrame) -> None:
    """Refuse bars that differ from others at the same time."""
    twice = bars.filter(pl.col("time").is_duplicated())
    if len(twice):
        at = twice["time"][0]
        msg = f"bars of {instrument}: two different ones at time={at}; required: one"
        raise ConflictingBarError(msg, hint="send each bar once, when it is finished")
    again = bars.join(stored, on="time", how="semi")
    differing = again.join(stored, on=COLUMNS, how="anti", nulls_equal=True).sort("time")
    if len(differing):
        got = differing.row(0, named=True)
        there = stored.row(by_predicate=pl.col("time") == got["time"], named=True)
        changed = {c: (there[c], got[c]) for c in COLUMNS if there[c] != got[c]}
        msg = f"bar of {instrument}, time={got['time']}: differs from the stored one, (stored, got)={changed}"
        raise ConflictingBarError(msg, hint="a finished bar does not change; send corrections by an ingest")
