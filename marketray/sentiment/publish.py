"""Articles with their scores into ``silver/sentiment``, where features and the service read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from marketray.hashing import digest, table_hash
from marketray.lake import Manifest
from marketray.sentiment.store import SENTIMENT

if TYPE_CHECKING:
    from marketray.lake import Lake

__all__ = ["Published", "publish_sentiment"]

_COLUMNS = ("article_id", "available_at", "positive", "negative", "neutral", "source", "title", "text_hash")


def withdraw_sentiment(lake: Lake, instrument: str) -> None:
    """Delete the scored articles of an instrument that has no articles any more; the texts' scores stay."""
    for partition in lake.partitions(SENTIMENT, instrument=instrument):
        lake.delete(SENTIMENT, partition)


@dataclass(frozen=True)
class Published:
    """Partitions written now and right already, and articles stored with and refused without scores."""

    written: int
    skipped: int
    rows: int
    refused: int


def publish_sentiment(
    lake: Lake, instrument: str, articles: pl.DataFrame, scores: pl.DataFrame, detail: dict[str, Any]
) -> Published:
    """Store the scored articles of an instrument by the month of `available_at`; drop months that have none.

    Parameters
    ----------
    articles:
        article_id, available_at, source, title and text_hash of all stored articles.
    scores:
        text_hash, positive, negative, neutral; an article whose text is not among them is refused.
    detail:
        What scored them, for the manifests: model, revision and `scorer` (see
        `marketray.sentiment.store.stored_scorer`).
    """
    scored = articles.join(scores, on="text_hash", how="inner").sort("available_at", "article_id")
    months = scored.group_by(pl.col("available_at").dt.strftime("%Y-%m"), maintain_order=True)
    written, kept = 0, set()
    for (month,), rows in months:
        partition = {"instrument": instrument, "month": str(month)}
        table = rows.select(_COLUMNS).to_arrow()
        content = table_hash(table)
        key = digest(content, detail)
        kept.add(str(month))
        if not lake.is_current(SENTIMENT, partition, key):
            manifest = Manifest(key, content, rows_in=len(rows), rows_out=len(rows), detail=detail)
            lake.write(SENTIMENT, partition, table, manifest)
            written += 1
    for partition in lake.partitions(SENTIMENT, instrument=instrument):
        if partition["month"] not in kept:
            lake.delete(SENTIMENT, partition)
    return Published(written, len(kept) - written, len(scored), len(articles) - len(scored))
