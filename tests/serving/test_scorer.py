"""A model that sees news answers from scores of the scorer it was trained on, or says why it does not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.bars import COLUMNS, OPTIONAL
from marketray.errors import ModelError
from marketray.features.catalog import build_catalog
from marketray.features.definition import NEWS
from marketray.lake import Lake
from marketray.models import get_family
from marketray.sentiment.publish import publish_sentiment
from marketray.serving.answers import Answer
from marketray.serving.forecaster import Forecaster
from marketray.serving.schemas import Problem
from marketray.serving.slot import Slot
from marketray.settings import Settings
from tests.serving.market import INSTRUMENT, Market, Placed, write_card

SEEN = "news_article_count_60m"
THEIRS, OURS = "finbert-1/headline", "finbert-mini-2/headline"


def score_news(settings: Settings, market: Market, scorer: str) -> None:
    """One article before the bars and one before the last of them, as the sentiment stage leaves them."""
    known = [market.bars["time"][0] - timedelta(days=1), market.bars["time"][-1] - timedelta(minutes=5)]
    articles = pl.DataFrame({"available_at": known, "text_hash": ["a", "b"]}).with_columns(
        article_id="text_hash", source=pl.lit("s"), title=pl.lit("t")
    )
    scores = pl.DataFrame({"text_hash": ["a", "b"], "positive": [0.5, 0.2]})
    scores = scores.with_columns(negative=pl.lit(0.3), neutral=0.7 - pl.col("positive"))
    publish_sentiment(Lake(settings.lake_uri), INSTRUMENT, articles, scores, {"scorer": scorer})


@pytest.fixture
def seeing(config: Placed, tmp_path: Path) -> Placed:
    """A slot whose model was trained on `THEIRS`: it adds a percent for an article in the last hour."""
    catalog = build_catalog(config.settings.features, (*COLUMNS, NEWS))
    count = np.tile(np.array([[0.0], [1.0]], np.float32), (500, 1))
    fit = get_family("lightgbm").fit
    model = fit({"n_estimators": 5, "min_child_samples": 1}, (SEEN,), count, 0.01 * count[:, 0].astype(float))
    folder = tmp_path / "seeing"
    model.save(folder)
    inputs = {"feature_inputs": [*OPTIONAL, NEWS], "model_type": "lightgbm"}
    write_card(folder, [SEEN], catalog.hash, scorer=THEIRS, **inputs)
    return replace(config, folder=str(folder))


def refreshed(slot: Slot) -> Answer | Problem:
    asyncio.run(slot.refresh())
    return answer(slot)


def answer(slot: Slot, bars: pl.DataFrame | None = None) -> Answer | Problem:
    return asyncio.run(slot.predict(None, bars))


def test_scores_of_the_trained_scorer_are_used_and_others_refused(seeing: Placed, market: Market) -> None:
    score_news(seeing.settings, market, THEIRS)
    slot = seeing.slot()
    info = asyncio.run(slot.status()).info
    assert info is not None
    assert info["scorer"] == THEIRS
    served = answer(slot)
    assert isinstance(served, Answer)
    assert served.predicted_return is not None
    assert served.predicted_return > 0.005
    assert answer(slot, market.bars) == served

    score_news(seeing.settings, market, OURS)  # the lake is scored anew while the slot serves
    for refused in (
        answer(slot, market.bars),
        refreshed(slot),
        answer(seeing.slot()),
        answer(seeing.slot(), market.bars),
    ):
        assert isinstance(refused, Problem)
        assert (refused.status, refused.type) == (503, "urn:marketray:problem:other-scorer")
        assert (refused.got, refused.required) == (OURS, THEIRS)
        assert OURS in refused.detail
        assert THEIRS in refused.detail
    status = asyncio.run(seeing.slot().status())
    assert status.problem is not None
    assert status.problem.status == 503


def test_scores_of_an_unknown_scorer_are_refused(seeing: Placed, market: Market) -> None:
    score_news(seeing.settings, market, "")
    refused = answer(seeing.slot())
    assert isinstance(refused, Problem)
    assert refused.status == 503


def test_a_model_that_sees_news_must_name_its_scorer(seeing: Placed) -> None:
    card = Path(seeing.folder) / "serving.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "scorer": None}))
    with pytest.raises(
        ModelError, match=rf"the model sees the news \({SEEN}\); serving.json has scorer=None"
    ):
        Forecaster(Path(seeing.folder))


def test_a_model_that_sees_no_news_does_not_mind_who_scores_it(config: Placed, market: Market) -> None:
    before = answer(config.slot())
    score_news(config.settings, market, OURS)
    assert answer(config.slot()) == before
