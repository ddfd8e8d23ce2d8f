"""Scored articles in the lake, and whether they still belong to the articles that are there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import LakeError
from marketray.features.definition import NEWS
from marketray.features.stage import available_columns
from marketray.hashing import table_hash
from marketray.ingest.schemas import ARTICLE_SCHEMA
from marketray.lake import Lake, Manifest
from marketray.sentiment.publish import publish_sentiment, withdraw_sentiment
from marketray.sentiment.store import (
    ARTICLES,
    SENTIMENT,
    articles_content,
    sentiment_manifest,
    stored_scorer,
)

KNOWN = datetime(2024, 1, 2, 12, tzinfo=UTC)


def store_article(lake: Lake, title: str) -> None:
    row = dict.fromkeys(ARTICLE_SCHEMA.names) | {"title": title, "available_at": KNOWN}
    table = pl.DataFrame([row]).to_arrow().cast(ARTICLE_SCHEMA)
    manifest = Manifest(title, table_hash(table), 1, 1)
    lake.write(ARTICLES, {"instrument": "X", "month": "2024-01"}, table, manifest)


def score_articles(lake: Lake) -> None:
    """As the sentiment stage leaves the lake."""
    made = {"article_id": "a", "available_at": KNOWN, "source": "s", "title": "t", "text_hash": "h"}
    scores = pl.DataFrame({"text_hash": ["h"], "positive": [0.5], "negative": [0.2], "neutral": [0.3]})
    publish_sentiment(lake, "X", pl.DataFrame([made]), scores, {"scorer": "m-1/headline"})
    detail = {"articles_content": articles_content(lake, "X")}
    lake.write_json(sentiment_manifest("X"), {"detail": detail})


def test_features_are_not_made_from_scores_of_other_articles(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    store_article(lake, "first")
    assert available_columns(lake, "X") == ()
    score_articles(lake)
    assert available_columns(lake, "X") == (NEWS,)
    assert available_columns(lake, "X", news=False) == ()
    store_article(lake, "another")
    with pytest.raises(LakeError, match="bronze/articles of instrument=X has changed since") as refused:
        available_columns(lake, "X")
    assert "marketray sentiment" in str(refused.value.hint)
    assert available_columns(lake, "X", news=False) == ()
    score_articles(lake)
    assert available_columns(lake, "X") == (NEWS,)


def test_scores_of_two_scorers_or_of_an_unknown_one_are_refused(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert stored_scorer(lake, "X") is None
    score_articles(lake)
    assert stored_scorer(lake, "X") == "m-1/headline"
    table = lake.read(SENTIMENT, {"instrument": "X", "month": "2024-01"})
    for detail, named in (({"scorer": "m-2/headline"}, "m-2/headline"), ({}, "unknown")):
        later = Manifest("k", "c", 1, 1, detail=detail)
        lake.write(SENTIMENT, {"instrument": "X", "month": "2024-02"}, table, later)
        with pytest.raises(LakeError, match=f"scored by m-1/headline in 2024-01, {named} in 2024-02; requ"):
            stored_scorer(lake, "X")
        assert stored_scorer(lake, "X", ["2024-01"]) == "m-1/headline"


def test_scores_of_articles_that_are_gone_go_too(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    store_article(lake, "first")
    score_articles(lake)
    lake.delete(ARTICLES)
    withdraw_sentiment(lake, "X")
    assert available_columns(lake, "X") == ()
