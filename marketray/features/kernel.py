"""The one evaluation of the catalog, for whole months and for the latest bar alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from marketray.bars import DAY_MINUTES
from marketray.errors import DataError, SettingsError
from marketray.features.catalog import Catalog
from marketray.sentiment.signals import news_columns
from marketray.sessions import Sessions

__all__ = ["compute", "compute_range", "known", "known_values", "latest", "with_kernel_columns"]

TIME = pl.Datetime("us", "UTC")

Float64Array = npt.NDArray[np.float64]


def compute(
    catalog: Catalog, bars: pl.DataFrame, sessions: Sessions, news: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Feature rows of all `bars`.

    Parameters
    ----------
    catalog:
        What to compute.
    bars:
        Bars with time (open, UTC) strictly increasing and the columns of `catalog.columns`. The first
        row counts as the first bar ever seen: a feature is null until its lookback of bars is there.
    sessions:
        Sessions that cover the bars' whole span.
    news:
        Scored articles (`marketray.sentiment.signals.NEWS_SCHEMA`) of the bars' span and `MAX_AGE_MINUTES`
        before it, and the first of all articles; required where the catalog has news features, otherwise not
        used.

    Returns
    -------
    pl.DataFrame
        time, decision_at (UTC), then one Float64 column a feature; a row uses bars that end at or
        before its decision_at only. Undefined and infinite values are null.

    Raises
    ------
    DataError
        A column is missing, the times do not increase, or the articles are missing or not usable.
    SettingsError
        A session is longer than a day, which the session features' lookback does not cover.
    """
    frame = with_kernel_columns(catalog, bars, sessions, news)
    for layer in catalog.layers:
        frame = frame.with_columns(layer)
    return frame.select(
        "time",
        pl.col("_decision_at").alias("decision_at"),
        *(known(pl.col(f.name).cast(pl.Float64), f.lookback).alias(f.name) for f in catalog.features),
    )


def compute_range(
    catalog: Catalog,
    bars: pa.Table,
    sessions: Sessions,
    start: datetime,
    end: datetime,
    *,
    news: pl.DataFrame | None = None,
    from_start: bool = False,
) -> pa.Table:
    """Feature rows of the bars with start <= time < end, from these and the halo before them.

    Parameters
    ----------
    bars:
        Bars of the range and at least `catalog.lookback` - 1 bars before it; what lies further back,
        or at or after `end`, is not used.
    news:
        As `compute` takes them.
    from_start:
        The bars begin where the instrument's history begins, so that a shorter halo is right.

    Raises
    ------
    DataError
        The halo is shorter than the lookback requires, or what `compute` refuses.
    """
    frame = pl.DataFrame(pl.from_arrow(bars)).filter(pl.col("time") < end)
    before = int((frame["time"] < start).sum())
    halo = catalog.lookback - 1
    if before < halo and not from_start:
        msg = f"bars: got a halo of {before} before {start:%F %R}; required: {halo} (lookback - 1)"
        raise DataError(msg, hint="read more of the bars before the range")
    rows = compute(catalog, frame.slice(max(before - halo, 0)), sessions, news)
    return rows.filter(pl.col("time") >= start).to_arrow()


def latest(
    catalog: Catalog,
    bars: pl.DataFrame,
    sessions: Sessions,
    *,
    news: pl.DataFrame | None = None,
    from_start: bool = False,
) -> pl.DataFrame:
    """Feature row of the last bar, from the last `catalog.lookback` bars; equal to the batch row.

    Parameters
    ----------
    bars:
        The tail of the history, at least `catalog.lookback` bars.
    news:
        As `compute` takes them.
    from_start:
        The bars begin where the instrument's history begins, so that fewer are right.

    Returns
    -------
    pl.DataFrame
        One row, as `compute` gives it.

    Raises
    ------
    DataError
        There are fewer bars than the lookback, or what `compute` refuses.
    """
    if bars.is_empty() or (bars.height < catalog.lookback and not from_start):
        msg = f"bars: got {bars.height}; required: the last {catalog.lookback} (the catalog's lookback)"
        raise DataError(msg, hint="pass a longer history, or leave out the features with a long lookback")
    return compute(catalog, bars.tail(catalog.lookback), sessions, news).tail(1)


def with_kernel_columns(
    catalog: Catalog, bars: pl.DataFrame, sessions: Sessions, news: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The bars with `KERNEL_COLUMNS` and the news beside them, checked; raises what `compute` raises."""
    _check(catalog.columns, bars)
    spans = sessions.frame
    longest = timedelta(microseconds=int((sessions.close_us - sessions.open_us).max(initial=0)))
    if longest > timedelta(minutes=DAY_MINUTES):
        msg = f"market.calendar: a session lasts {longest}; required: at most {DAY_MINUTES} minutes"
        raise SettingsError(msg, hint="declare the daily halts in market.breaks")
    position = pl.Series("_session", sessions.locate(bars["time"], catalog.interval_minutes))
    position = position.set(position < 0, None)
    if bars.columns != list(catalog.columns):
        bars = bars.select(catalog.columns)
    frame = bars.with_columns(
        pl.int_range(pl.len()).alias("_row"),
        (pl.col("time") + timedelta(minutes=catalog.interval_minutes)).alias("_decision_at"),
        position,
        spans["open_at"].gather(position).alias("_open_at"),
        spans["close_at"].gather(position).alias("_close_at"),
    )
    return _with_news(catalog, frame, news) if catalog.news_columns else frame


def _with_news(catalog: Catalog, frame: pl.DataFrame, news: pl.DataFrame | None) -> pl.DataFrame:
    if news is None:
        msg = "features: the catalog has news features; got no scored articles"
        raise DataError(msg, hint="run the sentiment stage, or leave out the group with features.groups")
    decisions = frame["_decision_at"].to_physical().to_numpy()
    found = news_columns(decisions, news, catalog.news_columns)
    return frame.hstack([pl.Series(name, values, nan_to_null=True) for name, values in found.items()])


def _check(required: Iterable[str], bars: pl.DataFrame) -> None:
    missing = [name for name in required if name not in bars.columns]
    if missing:
        msg = f"bars: got the columns {bars.columns}, which lack {missing}"
        raise DataError(msg, hint="pass bars as the lake's bronze/bars holds them")
    if bars.schema["time"] != TIME:
        msg = f"bars: time is {bars.schema['time']}; required: {TIME}"
        raise DataError(msg, hint="cast time to microseconds in UTC")
    times = bars["time"]
    if times.null_count() or not (np.diff(times.to_numpy().view(np.int64)) > 0).all():
        msg = "bars: the times do not strictly increase"
        raise DataError(msg, hint="sort the bars by time and drop duplicates")


def known(value: pl.Expr, lookback: int) -> pl.Expr:
    """`value` where it is finite and `lookback` bars have been seen (by the column ``_row``), else null."""
    return pl.when((pl.col("_row") >= lookback - 1) & value.is_finite()).then(value)


def known_values(values: Float64Array, lookbacks: npt.NDArray[np.int64], row: int) -> Float64Array:
    """The rule of `known` for one row of p features at position `row`; float64 (p,), NaN for null."""
    return np.where((row >= lookbacks - 1) & np.isfinite(values), values, np.nan)
