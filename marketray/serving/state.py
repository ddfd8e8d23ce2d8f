"""The latest bars of the lake, as many as the features look back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from marketray.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketray.serving.schemas import Bar

__all__ = ["BAR_COLUMNS", "OPTIONAL_COLUMNS", "bars_frame", "read_tail"]

OPTIONAL_COLUMNS = ("volume", "bid", "ask")
"""Bar columns that a market may lack."""

BAR_COLUMNS = ("time", "open", "high", "low", "close", *OPTIONAL_COLUMNS)
"""Columns of bars in serving, in order; a column that is missing in the lake is all null here."""

_DATASET = "bronze/bars"


def read_tail(
    lake: Lake, instrument: str, rows: int, *, interval: timedelta, until: datetime | None = None
) -> pl.DataFrame:
    """The last `rows` bars (fewer if there are fewer), sorted by time.

    Only as many months are read as are needed.

    Parameters
    ----------
    interval:
        Length of a bar.
    until:
        Leave out bars that end after this time, tz-aware; None keeps all.
    """
    frames: list[pl.DataFrame] = []
    found = 0
    for partition in reversed(lake.partitions(_DATASET, instrument=instrument)):
        frame = _with_all_columns(pl.DataFrame(lake.read(_DATASET, partition)))
        if until is not None:
            frame = frame.filter(pl.col("time") + interval <= until)
        frames.append(frame)
        found += len(frame)
        if found >= rows:
            break
    if not frames:
        return pl.DataFrame(schema=_schema())
    return pl.concat(frames[::-1]).sort("time").tail(rows)


def bars_frame(bars: Sequence[Bar]) -> pl.DataFrame:
    """Bars of a request as a table with the columns `BAR_COLUMNS`."""
    rows = [(b.time, b.open, b.high, b.low, b.close, b.volume, b.bid, b.ask) for b in bars]
    return pl.DataFrame(rows, schema=_schema(), orient="row")


def _schema() -> dict[str, pl.DataType]:
    return {c: pl.Datetime("us", "UTC") if c == "time" else pl.Float64() for c in BAR_COLUMNS}


def _with_all_columns(frame: pl.DataFrame) -> pl.DataFrame:
    absent = [pl.lit(None, pl.Float64).alias(c) for c in OPTIONAL_COLUMNS if c not in frame.columns]
    return frame.with_columns(absent).select(BAR_COLUMNS)
