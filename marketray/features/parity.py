"""Does the live path give the rows of the batch? A recorded day is replayed bar by bar to find out.

The online state is restored from the lake at the day's start and takes one bar after another, each at
its end; halfway a second state is restored and goes on beside it. The day is a session date: it holds
the bars that open at or after the close of the session date before it and before its own last close,
those outside all sessions included, so every stored bar belongs to one day.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.errors import DataError, LakeError
from marketray.features.audit import TOLERANCE, evaluate, interquartile_range, relative_excess
from marketray.features.items import stage_key
from marketray.features.online import OnlineState
from marketray.features.stage import BARS, DATASET
from marketray.features.tail import read_tail
from marketray.sessions import Sessions, month_sessions, trading_sessions

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog
    from marketray.lake import Lake
    from marketray.settings import MarketSettings, Settings

__all__ = ["Mismatch", "Recording", "Replay", "recorded_day", "replay_day"]

_log = logging.getLogger(__name__)

Float64Array = npt.NDArray[np.float64]

_YARDSTICK = 6_000  # bars before the day whose interquartile ranges measure its differences


@dataclass(frozen=True)
class Mismatch:
    """A feature whose live rows are not those of the batch.

    Attributes
    ----------
    feature:
        Its name.
    when:
        "replay": the live row differs from the batch's; "restart": the row of a state restored within
        the day differs from that of the state that went on.
    rows:
        Rows that differ, over both.
    difference:
        Largest difference; None where values only came or went.
    difference_in_iqr:
        The same in interquartile ranges of the feature; None where the range is 0.
    first_decision_at:
        The earliest row that differs.
    """

    feature: str
    when: tuple[str, ...]
    rows: int
    difference: float | None
    difference_in_iqr: float | None
    first_decision_at: datetime


@dataclass(frozen=True)
class Recording:
    """The bars of one session date, and at least the lookback before them where the lake has it."""

    day: date
    bars: pl.DataFrame
    history: pl.DataFrame


@dataclass(frozen=True)
class Replay:
    """Outcome of `replay_day`: what differs, what it was compared with, the restart's first bar."""

    mismatches: list[Mismatch]
    batch: str
    restarted_at: datetime


def recorded_day(settings: Settings, lake: Lake, catalog: Catalog, day: date | None = None) -> Recording:
    """The stored bars of a session date; by default the last that has bars and has ended in the lake.

    Raises
    ------
    DataError
        The day is no session date, has no bars, or no session date has ended yet.
    LakeError, SettingsError
        The lake cannot be read, or the calendar does not reach the day.
    """
    interval, instrument = timedelta(minutes=catalog.interval_minutes), settings.instrument
    if day is None:
        day, start, end = _last_full_day(settings, lake, interval)
    else:
        start, end = _span(settings.market, day)
    rows = (end - start) // interval + catalog.lookback + _YARDSTICK
    tail = read_tail(lake, instrument, rows, interval=interval, until=end + interval)
    history = tail.filter(pl.col("time") < end)
    bars = history.filter(pl.col("time") >= start)
    if bars.is_empty():
        msg = f"--day {day}: got no bars of {instrument} in {lake.uri}; required: a recorded session date"
        raise DataError(msg, hint=f"its bars open from {start:%F %R} to {end:%F %R} UTC; name another day")
    return Recording(day, bars, history)


def replay_day(settings: Settings, lake: Lake, catalog: Catalog, recording: Recording) -> Replay:
    """Replay the day through `OnlineState`, restart it halfway, and compare with the batch.

    The batch's rows are those stored in silver/features; where that stage has not run, or ran on other
    bars, settings or code, they are computed now. Equal means the same nulls and
    |a - b| <= 1e-9 max(|b|, IQR), the IQR being that of the stored months or of the bars before the
    day; exact features, and the rows of the restarted state, must have the same bits.

    Raises
    ------
    DataError
        The online state refuses a stored bar.
    LakeError
        The lake cannot be read, or silver/features has other rows than the day has bars.
    """
    bars = recording.bars
    batch, origin = _batch_rows(settings, lake, catalog, recording)
    stored = _rows_of(bars, batch, origin)
    middle = bars.height // 2
    _log.info("audit: replaying %d bars of %s, %s", bars.height, settings.instrument, recording.day)
    live = _live_values(settings, lake, catalog, bars)
    restarted = _live_values(settings, lake, catalog, bars.slice(middle))
    found = []
    for i, f in enumerate(catalog.features):
        spread, values = interquartile_range(batch[f.name]), stored[f.name].to_numpy()
        pairs = [
            _Pair("replay", live[:, i], values, 0, exact=f.exact),
            _Pair("restart", restarted[:, i], live[middle:, i], middle, exact=True),
        ]
        differing = [p for p in pairs if p.rows(spread).size]
        if differing:
            found.append(_mismatch(f.name, differing, spread, stored["decision_at"]))
    return Replay(found, origin, bars["time"][middle])


@dataclass(frozen=True)
class _Pair:
    """Values of one feature, NaN where missing, and what they should be, from row `start` of the day on."""

    what: str
    got: Float64Array
    expected: Float64Array
    start: int
    exact: bool

    def rows(self, spread: float) -> npt.NDArray[np.int64]:
        """Rows of the day that differ."""
        excess = relative_excess(self.got, self.expected, spread)
        return self.start + np.flatnonzero(excess > (0.0 if self.exact else TOLERANCE))


def _mismatch(name: str, differing: Sequence[_Pair], spread: float, ends: pl.Series) -> Mismatch:
    rows = [p.rows(spread) for p in differing]
    gaps = np.concatenate(
        [np.abs(p.got - p.expected)[r - p.start] for p, r in zip(differing, rows, strict=True)]
    )
    gaps = gaps[~np.isnan(gaps)]
    largest = float(gaps.max()) if gaps.size else None
    return Mismatch(
        feature=name,
        when=tuple(p.what for p in differing),
        rows=sum(r.size for r in rows),
        difference=largest,
        difference_in_iqr=largest / spread if largest is not None and spread > 0 else None,
        first_decision_at=ends[int(min(r[0] for r in rows))],
    )


def _live_values(settings: Settings, lake: Lake, catalog: Catalog, bars: pl.DataFrame) -> Float64Array:
    """Features of each bar, shape (n, p), by a state restored from the lake at the first bar's open."""
    start, interval = bars["time"][0], timedelta(minutes=catalog.interval_minutes)
    state = OnlineState.from_lake(
        catalog, settings.market, lake, settings.instrument, until=start, outside_sessions="keep"
    )
    rows = [state.append(bar, bar["time"] + interval).values for bar in bars.iter_rows(named=True)]
    return np.stack(rows)


def _batch_rows(
    settings: Settings, lake: Lake, catalog: Catalog, recording: Recording
) -> tuple[pl.DataFrame, str]:
    """The batch's feature rows of the day and of bars around it, and where they come from."""
    instrument = settings.instrument
    manifests = [lake.manifest(BARS, p) for p in lake.partitions(BARS, instrument=instrument)]
    contents = [m.content for m in manifests if m is not None and m.rows_out]
    last_run = lake.read_json(f"manifests/features/{instrument}.json")
    if last_run is not None and last_run["key"] == stage_key(catalog.hash, settings.market, contents):
        months = sorted({f"{t:%Y-%m}" for t in (recording.bars["time"][0], recording.bars["time"][-1])})
        columns = ["time", "decision_at", *catalog.names]
        tables = [lake.read(DATASET, {"instrument": instrument, "month": m}, columns) for m in months]
        return pl.concat(pl.DataFrame(pl.from_arrow(table)) for table in tables), DATASET
    times = recording.history["time"]
    sessions = month_sessions(settings.market, times[0].date(), times[-1].date())
    rows = evaluate(catalog, recording.history, sessions)
    why = "not there" if last_run is None else "of other bars, settings or code"
    return rows, f"computed now, since {DATASET} is {why}"


def _rows_of(bars: pl.DataFrame, batch: pl.DataFrame, origin: str) -> pl.DataFrame:
    """The day's rows of the batch, one for each of its bars."""
    first, last = bars["time"][0], bars["time"][-1]
    rows = batch.filter(pl.col("time").is_between(first, last))
    if not rows["time"].equals(bars["time"]):
        msg = (
            f"{origin} has {rows.height} rows from {first:%F %R} to {last:%F %R}; required: one for each of "
        )
        msg += f"the {bars.height} bars"
        raise LakeError(msg, hint="delete these partitions and run the features stage again")
    return rows


def _last_full_day(settings: Settings, lake: Lake, interval: timedelta) -> tuple[date, datetime, datetime]:
    """The last session date that has bars and closes by the end of the lake's last bar, with its span."""
    last_end: datetime | None = None
    for partition in reversed(lake.partitions(BARS, instrument=settings.instrument)):
        times = pl.Series(lake.read(BARS, partition, ["time"])["time"])
        if times.is_empty():
            continue
        last_end = last_end or times[-1] + interval
        spans = _spans(month_sessions(settings.market, times[0].date(), times[-1].date()))
        for day, start, end in reversed(spans.rows()):
            if end <= last_end and times.is_between(start, end, closed="left").any():
                return day, start, end
    msg = f"audit parity: no session date of {settings.instrument} has ended in {lake.uri}"
    raise DataError(msg, hint="ingest more bars, or name a recorded day by --day")


def _span(market: MarketSettings, day: date) -> tuple[datetime, datetime]:
    spans = _spans(trading_sessions(market.calendar, day, day, market.breaks))
    found = spans.filter(pl.col("session_date") == day)
    if found.is_empty():
        near = [d for d in spans["session_date"] if d > day][:1] or [spans["session_date"][-1]]
        msg = f"--day {day}: no session date of {market.calendar}; required: a date on which a session ends"
        raise DataError(msg, hint=f"for example {near[0]}")
    _, start, end = found.row(0)
    return start, end


def _spans(sessions: Sessions) -> pl.DataFrame:
    """Session dates with start and end: the last close of the date before, and their own last close."""
    closes = sessions.frame.group_by("session_date", maintain_order=True).agg(pl.col("close_at").max())
    start = pl.col("close_at").shift(1).alias("start")
    return closes.select("session_date", start, pl.col("close_at").alias("end")).drop_nulls()
