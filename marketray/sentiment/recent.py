"""The latest scored articles with what people want to read of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from marketray.sentiment.store import ARTICLES, SENTIMENT, news_contents

if TYPE_CHECKING:
    from marketray.lake import Lake

__all__ = ["RECENT", "recent_news"]

_SCORED = {
    "article_id": pl.String(),
    "available_at": pl.Datetime("us", "UTC"),
    "positive": pl.Float64(),
    "negative": pl.Float64(),
    "neutral": pl.Float64(),
    "source": pl.String(),
    "title": pl.String(),
}
_TOLD = {
    "article_id": pl.String(),
    "published_at": pl.Datetime("us", "UTC"),
    "url": pl.String(),
}
RECENT = (
    *("title", "source", "url", "published_at", "available_at", "positive", "negative", "neutral"),
    "score",
)
"""Columns of `recent_news`."""


def recent_news(lake: Lake, instrument: str, limit: int) -> pl.DataFrame:
    """The newest `limit` scored articles by `available_at`, newest first; columns `RECENT`.

    `score` is positive − negative. Articles that are scored but no longer stored are left out.

    Raises
    ------
    LakeError
        A month cannot be read.
    """
    found = pl.DataFrame(schema=_SCORED)
    for month in reversed(news_contents(lake, instrument)):
        if len(found) >= limit:
            break
        found = pl.concat([found, _read(lake, SENTIMENT, instrument, month, _SCORED)])
    found = found.sort("available_at", "article_id", descending=True).head(limit)
    months = {f"{at:%Y-%m}" for at in found["available_at"]}
    stored = {p["month"] for p in lake.partitions(ARTICLES, instrument=instrument)}
    parts = [_read(lake, ARTICLES, instrument, month, _TOLD) for month in sorted(months & stored)]
    articles = pl.concat([pl.DataFrame(schema=_TOLD), *parts])
    told = found.join(articles, on="article_id", how="inner", maintain_order="left")
    return told.with_columns(score=pl.col("positive") - pl.col("negative")).select(RECENT)


def _read(
    lake: Lake, dataset: str, instrument: str, month: str, schema: dict[str, pl.DataType]
) -> pl.DataFrame:
    table = lake.read(dataset, {"instrument": instrument, "month": month}, list(schema))
    return pl.DataFrame(table).select(pl.col(name).cast(kind) for name, kind in schema.items())
