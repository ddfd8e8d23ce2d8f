"""The latest bars of the lake, as many as the features look back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from marketray.bars import COLUMNS as BAR_COLUMNS
from marketray.bars import OPTIONAL as OPTIONAL_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from marketray.lake import Lake

__all__ = ["BAR_COLUMNS", "OPTIONAL_COLUMNS", "bar_schema", "read_at", "read_tail"]

_DATASET = "bronze/bars"


def read_tail(
    lake: Lake, instrument: str, rows: int, *, interval: timedelta, until: datetime | None = None
) -> pl.DataFrame:
    """The last `rows` bars (fewer if there are fewer), sorted by time.

    Only as many months are read as are needed. A column that a month lacks is null there.

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
        return pl.DataFrame(schema=bar_schema())
    return pl.concat(frames[::-1]).sort("time").tail(rows)


def read_at(lake: Lake, instrument: str, times: Sequence[datetime]) -> pl.DataFrame:
    """The bars that open at these times, UTC, as far as the lake has them."""
    months = {f"{time:%Y-%m}" for time in times}
    frames = [pl.DataFrame(schema=bar_schema())]
    for partition in lake.partitions(_DATASET, instrument=instrument):
        if partition["month"] in months:
            frame = _with_all_columns(pl.DataFrame(lake.read(_DATASET, partition)))
            frames.append(frame.filter(pl.col("time").is_in(list(times))))
    return pl.concat(frames)


def bar_schema() -> dict[str, pl.DataType]:
    """Types of `BAR_COLUMNS`."""
    return {c: pl.Datetime("us", "UTC") if c == "time" else pl.Float64() for c in BAR_COLUMNS}


def _with_all_columns(frame: pl.DataFrame) -> pl.DataFrame:
    absent = [pl.lit(None, pl.Float64).alias(c) for c in OPTIONAL_COLUMNS if c not in frame.columns]
    return frame.with_columns(absent).select(BAR_COLUMNS)
