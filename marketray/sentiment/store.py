"""Scored articles in the lake: ``silver/sentiment``, one partition for each month of `available_at`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from marketray.errors import LakeError
from marketray.hashing import digest
from marketray.sentiment.signals import MAX_AGE_MINUTES, NEWS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketray.lake import Lake

__all__ = [
    "ARTICLES",
    "SENTIMENT",
    "articles_content",
    "months_between",
    "news_contents",
    "read_news",
    "require_scored",
    "sentiment_manifest",
    "stored_scorer",
]

ARTICLES = "bronze/articles"

SENTIMENT = "silver/sentiment"


def news_contents(lake: Lake, instrument: str) -> dict[str, str]:
    """Digest of the scored articles by month ("YYYY-MM", UTC), in order, of the months that have any."""
    found = {}
    for partition in lake.partitions(SENTIMENT, instrument=instrument):
        manifest = lake.manifest(SENTIMENT, partition)
        if manifest is not None and manifest.rows_out and manifest.content is not None:
            found[partition["month"]] = manifest.content
    return found


def articles_content(lake: Lake, instrument: str) -> str:
    """Digest of all stored articles of the instrument."""
    found = []
    for partition in lake.partitions(ARTICLES, instrument=instrument):
        manifest = lake.manifest(ARTICLES, partition)
        found.append([partition["month"], manifest.content if manifest is not None else None])
    return digest(found)


def stored_scorer(lake: Lake, instrument: str, months: Sequence[str] | None = None) -> str | None:
    """What gave the stored scores, such as ``finbert-mini-0f3a…/headline``; None where there are none.

    It names the model, its revision, the tokens read and the number format (`Checkpoint.scoring_id`), and the
    text that was read (`sentiment.text`). Scores of another scorer are other numbers of the same name.

    Parameters
    ----------
    months:
        Months to ask; None: all.

    Raises
    ------
    LakeError
        Months have different scorers, as a run that was killed leaves them, or do not say which.
    """
    found: dict[str, str | None] = {}
    for partition in lake.partitions(SENTIMENT, instrument=instrument):
        month = partition["month"]
        manifest = lake.manifest(SENTIMENT, partition) if months is None or month in months else None
        if manifest is not None and manifest.rows_out:
            found[month] = manifest.detail.get("scorer")
    scorers = set(found.values())
    if len(scorers) > 1 or None in scorers:
        named = ", ".join(f"{scorer or 'unknown'} in {month}" for month, scorer in found.items())
        msg = f"{SENTIMENT} of instrument={instrument} is scored by {named}; required: one scorer"
        raise LakeError(msg, hint="run the sentiment stage (marketray sentiment), then features and dataset")
    return scorers.pop() if scorers else None


def sentiment_manifest(instrument: str) -> str:
    """Name of the JSON document in which the sentiment stage notes what it did."""
    return f"manifests/sentiment/{instrument}.json"


def require_scored(lake: Lake, instrument: str) -> None:
    """Raise LakeError where the articles have changed since they were scored."""
    noted = lake.read_json(sentiment_manifest(instrument))
    if noted is None or not lake.partitions(ARTICLES, instrument=instrument):
        return
    if noted["detail"].get("articles_content") != articles_content(lake, instrument):
        msg = f"{ARTICLES} of instrument={instrument} has changed since its articles were scored"
        raise LakeError(msg, hint="run the sentiment stage (marketray sentiment), then this one again")


def months_between(
    months: Mapping[str, str] | Sequence[str], first: datetime, last: datetime | None = None
) -> tuple[str, ...]:
    """The months that hold articles which a decision in [first, last] can know, in order.

    The first of all months is among them: its first article says since when news is collected. `months`
    are in order, `first` and `last` tz-aware; without `last`, any decision from `first` on.
    """
    oldest = f"{first.astimezone(UTC) - timedelta(minutes=MAX_AGE_MINUTES):%Y-%m}"
    told = [m for m in months if last is None or m <= f"{last.astimezone(UTC):%Y-%m}"]
    return tuple(m for m in told if oldest <= m or m == told[0])


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
