"""Scored articles in the lake: ``silver/sentiment``, one partition for each month of `available_at`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from marketray.sentiment.signals import MAX_AGE_MINUTES, NEWS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketray.lake import Lake

__all__ = ["SENTIMENT", "months_between", "news_contents", "read_news"]

SENTIMENT = "silver/sentiment"


def news_contents(lake: Lake, instrument: str) -> dict[str, str]:
    """Digest of the scored articles by month ("YYYY-MM", UTC), in order, of the months that have any."""
    found = {}
    for partition in lake.partitions(SENTIMENT, instrument=instrument):
        manifest = lake.manifest(SENTIMENT, partition)
        if manifest is not None and manifest.rows_out and manifest.content is not None:
            found[partition["month"]] = manifest.content
    return found


def months_between(
    months: Mapping[str, str] | Sequence[str], first: datetime, last: datetime | None = None
) -> tuple[str, ...]:
    """The months that hold articles which a decision in [first, last] can know, in order.

    `first` and `last` are tz-aware; without `last`, any decision from `first` on.
    """
    oldest = f"{first.astimezone(UTC) - timedelta(minutes=MAX_AGE_MINUTES):%Y-%m}"
    return tuple(m for m in months if oldest <= m and (last is None or m <= f"{last.astimezone(UTC):%Y-%m}"))


def read_news(lake: Lake, instrument: str, months: Sequence[str]) -> pl.DataFrame:
    """The scored articles of some months as `NEWS_SCHEMA`, sorted by available_at.

    Raises
    ------
    LakeError
        A month is missing or cannot be read.
    """
    parts = [pl.DataFrame(schema=NEWS_SCHEMA)]
    for month in months:
        table = lake.read(SENTIMENT, {"instrument": instrument, "month": month}, list(NEWS_SCHEMA))
        parts.append(
            pl.DataFrame(table).select(pl.col(name).cast(kind) for name, kind in NEWS_SCHEMA.items())
        )
    return pl.concat(parts).sort("available_at", maintain_order=True)
