"""Scoring through Ray: the plain way's scores, a cache that saves every pass, no text lost or doubled."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from marketray.errors import LakeError, ModelError
from marketray.ingest.schemas import ARTICLE_SCHEMA
from marketray.lake import Lake, Manifest
from marketray.sentiment.cache import SCORES, ScoreCache
from marketray.sentiment.checkpoint import PACKAGED, Checkpoint, find_checkpoint
from marketray.sentiment.choice import DEFAULT_MODEL, model_for, warn_of_stand_in
from marketray.sentiment.job import Scorer, ScoringJob
from marketray.sentiment.stage import (
    ARTICLES,
    SentimentResult,
    _raise_for_error,
    run_sentiment,
    score_texts,
)
from marketray.sentiment.store import SENTIMENT, stored_scorer
from marketray.settings import SentimentSettings, Settings, load_settings
from tests.sentiment.checkpoints import make_texts, plain_scores, save_checkpoint

TEXTS = make_texts(240)
CLASSES = ("positive", "negative", "neutral")
pytestmark = pytest.mark.usefixtures("ray_local")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def wanted(saved: Path) -> dict[str, np.ndarray]:
    """Probabilities of the plain way by text hash."""
    return dict(zip(TEXTS["text_hash"], plain_scores(saved, TEXTS["text"].to_list()), strict=True))


def settings_of(home: Path, saved: Path, **sentiment: Any) -> Settings:
    options = {"model": str(saved), "dtype": "float32", "max_tokens": 64, "token_budget": 64, "actors": 1}
    return load_settings(None, {"home": str(home), "instrument": "X", "sentiment": options | sentiment})


def store_articles(settings: Settings, titles: list[str | None]) -> None:
    """The titles as two months of articles."""
    lake, half = Lake(settings.lake_uri), len(titles) // 2
    for month, part in (("2024-01", titles[:half]), ("2024-02", titles[half:])):
        columns = {name: [None] * len(part) for name in ARTICLE_SCHEMA.names} | {"title": part}
        table = pa.table(columns, schema=ARTICLE_SCHEMA)
        manifest = Manifest("", "", len(part), len(part))
        lake.write(ARTICLES, {"instrument": "X", "month": month}, table, manifest)


def cached(settings: Settings, result: SentimentResult) -> pl.DataFrame:
    return ScoreCache(Lake(settings.lake_uri), result.scoring_id).scores()


def assert_scores(scores: pl.DataFrame, wanted: dict[str, np.ndarray]) -> None:
    """Each text once, with the plain way's probabilities."""
    assert sorted(scores["text_hash"]) == sorted(wanted)
    got = scores.select(CLASSES).to_numpy()
    np.testing.assert_allclose(got, [wanted[h] for h in scores["text_hash"]], atol=2e-6)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, saved: Path, ray_local: None
) -> tuple[Settings, SentimentResult]:
    """All texts in the lake, some of them twice, and two that cannot be scored; one run."""
    settings = settings_of(tmp_path_factory.mktemp("undisturbed"), saved)
    titles = TEXTS["text"].to_list()
    store_articles(settings, [*titles, *titles[:20], "short", None])
    return settings, run_sentiment(settings)


def test_stored_articles_are_scored_once(
    undisturbed: tuple[Settings, SentimentResult], saved: Path, wanted: dict[str, np.ndarray]
) -> None:
    settings, first = undisturbed
    assert_scores(cached(settings, first), wanted)
    assert (first.articles, first.texts, first.scored, first.refused) == (262, 242, 240, 2)
    assert (first.cached, first.revision) == (0, find_checkpoint(str(saved), None, saved).revision)
    assert first.passes > 20

    path = settings.home_path / "lake/manifests/sentiment/X.json"
    before = path.read_bytes()
    second = run_sentiment(settings)
    assert (second.passes, second.tokens, second.cached, second.scored, second.refused) == (0, 0, 242, 240, 2)
    assert path.read_bytes() == before
    manifest = json.loads(before)
    assert (manifest["rows_in"], manifest["rows_out"], manifest["rows_quarantined"]) == (262, 260, 2)
    assert manifest["detail"]["texts"] == {"texts": 242, "scored": 240, "refused": 2}
    assert (first.articles_cached, second.articles_cached) == (0, 262)
    stored = Lake(settings.lake_uri).scan(SENTIMENT, instrument="X")
    assert sum(table.num_rows for _, table in stored) == 260
    assert stored_scorer(Lake(settings.lake_uri), "X") == f"{first.scoring_id}/headline"
    assert manifest["detail"]["reasons"] == {
        "the text is empty": 1,
        "the text is shorter than 10 characters": 1,
    }


def test_a_run_killed_half_way_continues(
    undisturbed: tuple[Settings, SentimentResult], tmp_path: Path, saved: Path
) -> None:
    whole, result = undisturbed
    settings = settings_of(tmp_path, saved)
    store_articles(settings, [*TEXTS["text"], "short", None])
    done: list[int] = []

    def stop(block: dict[str, Any]) -> None:
        done.append(block["passes"])
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sentiment(settings, on_block=stop)
    rest = run_sentiment(settings)
    assert rest.cached >= 20
    assert 0 < rest.passes <= result.passes - sum(done)
    again, once = (cached(s, result).sort("text_hash") for s in (settings, whole))
    assert again.equals(once)  # the same blocks, hence the same bits
    blocks = [Lake(s.lake_uri).partitions(SCORES) for s in (settings, whole)]
    assert blocks[0] == blocks[1]


def test_a_killed_actor_loses_and_doubles_nothing(
    tmp_path: Path, saved: Path, wanted: dict[str, np.ndarray]
) -> None:
    pids: list[int] = []

    def kill_once(block: dict[str, Any]) -> None:
        if not pids:
            os.kill(block["pid"], signal.SIGKILL)
        pids.append(block["pid"])

    extra = pl.DataFrame({"text": [" "], "text_hash": ["nothing"]})
    texts = pl.concat([TEXTS, extra]).to_arrow()
    result = score_texts(texts, settings_of(tmp_path, saved), on_block=kill_once)
    assert len(set(pids)) == 2  # another process went on
    assert_scores(pl.from_arrow(result.scores), wanted)
    assert result.refused.to_pylist() == [{"text_hash": "nothing", "reason": "the text is empty"}]
    assert result.tokens == sum(result.scores["tokens"].to_pylist()) <= result.padded_tokens
    assert not (tmp_path / "lake").exists()


def test_errors_of_a_process_come_back_as_they_are(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"not a tensor file")
    row = Scorer(job_of(folder, find_checkpoint(str(folder), None, tmp_path)))({"block": "b", "texts": b""})
    with pytest.raises(ModelError, match="broken cannot be loaded") as raised:
        _raise_for_error(row)
    assert raised.value.hint == "fetch or copy the checkpoint again"


def job_of(home: Path, checkpoint: Checkpoint) -> ScoringJob:
    return ScoringJob(checkpoint, None, home, "", 0, "cpu", "float32", 64, False, 1, "finbert-1")


def test_a_node_with_another_revision_is_refused(tmp_path: Path, saved: Path) -> None:
    job = job_of(tmp_path, replace(find_checkpoint(str(saved), None, tmp_path), revision="0" * 40))
    with pytest.raises(ModelError, match="this node has the revision .*, the driver 0000"):
        job.load()


def test_no_articles(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(LakeError, match="bronze/articles: no articles of instrument=X"):
        run_sentiment(settings_of(tmp_path, saved))


@pytest.mark.parametrize(
    ("sources", "model"),
    [(["simulator"], "finbert-mini"), (["simulator", None], DEFAULT_MODEL), ([None], DEFAULT_MODEL)],
)
def test_only_the_simulators_news_gets_the_stand_in_unasked(sources: list[str | None], model: str) -> None:
    articles = pl.DataFrame({"source": sources}, schema={"source": pl.String})
    assert model_for(SentimentSettings(), articles) == model


@pytest.mark.parametrize(("source", "warned"), [("simulator", False), ("Reuters", True), (None, True)])
def test_the_stand_in_says_when_it_reads_real_news(
    saved: Path, source: str | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    name = next(iter(PACKAGED))
    checkpoint = replace(find_checkpoint(str(saved), None, saved), name=name)
    warn_of_stand_in(checkpoint, pl.DataFrame({"source": [source]}, schema={"source": pl.String}))
    assert ("scores 1 articles that are not the simulator's" in caplog.text) is warned
