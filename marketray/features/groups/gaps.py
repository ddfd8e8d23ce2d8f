"""Gaps in price between bars and sessions, and gaps in time where bars are missing."""

from __future__ import annotations

import math

import polars as pl

from marketray.bars import DAY_MINUTES
from marketray.features.definition import Feature

__all__ = ["gap_columns", "gaps"]

_GROUP = "gaps"
_SPAN = 60


def gap_columns() -> dict[str, pl.Expr]:
    """Shared columns: the close before the session's first bar, and how many bars it has had."""
    first = pl.col("_previous_close").first().over("_session")
    return {
        "_close_before_session": pl.when(pl.col("_session").is_not_null()).then(first),
        "_bars_in_session": pl.int_range(1, pl.len() + 1).over("_session"),
    }


def gaps(interval_minutes: int) -> list[Feature]:
    """All gap features for bars of `interval_minutes`."""
    opening = Feature(
        name="gap_1",
        group=_GROUP,
        lookback=2,
        expression=pl.col("open") / pl.col("_previous_close") - 1,
        formula="O / C[-1] - 1",
        source="opening gap",
        exact=True,
    )
    bars = [_bars_between(30, end, interval_minutes) for end in (60, 360)]
    return [opening, *_session_gaps(interval_minutes), _missing(interval_minutes), *bars]


def _session_gaps(interval_minutes: int) -> list[Feature]:
    """A lookback of one day ends at the first bar of a full day's session: its last bar has null."""
    lookback = min(math.ceil(DAY_MINUTES / interval_minutes) + 1, DAY_MINUTES)
    reached = pl.when(pl.col("_bars_in_session") < lookback)
    before = pl.col("_close_before_session")
    first = pl.col("open").first().over("_session")
    low, high = pl.col("_session_low"), pl.col("_session_high")
    edge = "; null outside sessions and where that bar is a day of bars back"
    return [
        Feature(
            name="session_gap",
            group=_GROUP,
            lookback=lookback,
            expression=reached.then(first / before - 1),
            formula=f"open of the session's first bar / close of the bar before it - 1{edge}",
            source="overnight gap",
            exact=True,
        ),
        Feature(
            name="gap_filled",
            group=_GROUP,
            lookback=lookback,
            expression=reached.then(before.is_between(low, high).cast(pl.Float64)),
            formula=f"1 where min L <= close before the session <= max H since its open, else 0{edge}",
            source="overnight gap",
            unit="0 or 1",
            exact=True,
        ),
    ]


def _missing(interval_minutes: int) -> Feature:
    elapsed = pl.col("time") - pl.col("time").shift(_SPAN - 1)
    held = (_SPAN - 1) * interval_minutes * 60e6 / elapsed.dt.total_microseconds()
    return Feature(
        name=f"missing_share_{_SPAN}",
        group=_GROUP,
        lookback=_SPAN,
        expression=(1 - held).clip(0.0, 1.0),
        formula=f"share of the bar slots without a bar, over the span of the last {_SPAN} bars, "
        "breaks included",
        source="bar times",
        unit="share, 0 to 1",
        exact=True,
    )


def _bars_between(start: int, end: int, interval_minutes: int) -> Feature:
    """Insertion points of two times on the grid; no later bar can move their distance."""
    near, far = (
        pl.col("time").search_sorted(pl.col("time") - pl.duration(minutes=n * interval_minutes), side="right")
        for n in (start, end)
    )
    return Feature(
        name=f"bars_{start}_to_{end}",
        group=_GROUP,
        lookback=end,
        expression=(near.cast(pl.Int64) - far.cast(pl.Int64)) / (end - start),
        formula=f"bars with t - {end} < time <= t - {start} / {end - start}, counted in bar intervals "
        "(minutes for one-minute bars)",
        source="bar times",
        unit="share, 0 to 1",
        exact=True,
    )
