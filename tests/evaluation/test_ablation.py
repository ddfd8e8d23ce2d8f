"""With and without the news: the same rows and hyperparameters, figures that can be worked out again."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from marketray.bars import REQUIRED
from marketray.console import ablation_table
from marketray.dataset.load import VAULT, load_blocks, load_split
from marketray.evaluation.ablation import compare_pair, plan_pairs
from marketray.evaluation.candidates import Candidate, refit
from marketray.evaluation.news import article_labels, news_features
from marketray.evaluation.outcome import ablation_notes
from marketray.evaluation.ranking_stage import rank_candidates
from marketray.evaluation.selection import Rows
from marketray.evaluation.significance import diebold_mariano
from marketray.evaluation.stage import run_select
from marketray.features.catalog import build_catalog
from marketray.features.definition import NEWS
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.models import load_model
from marketray.sentiment.lexicon import lexicon_scores
from marketray.sentiment.texts import text_hashes
from marketray.settings import Settings
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars
from tests.evaluation.test_stage import documents, write_tuning

MINUTE = 60_000_000
TITLES = {1: "Strong gains and a great profit", 0: "A meeting is held on Monday", -1: "A terrible loss"}


def write_news(settings: Settings, bars: pl.DataFrame, seed: int = 3) -> None:
    """About two articles a session, and features of the news that depend on them."""
    rng, lake = np.random.default_rng(seed), Lake(settings.lake_uri)
    picked = bars.sample(120, seed=seed).sort("time")
    tone = rng.integers(-1, 2, len(picked))
    titles = pl.Series("title", [TITLES[int(t)] for t in tone])
    articles = pl.DataFrame(
        {
            "article_id": [f"a{i // 2}" for i in range(len(picked))],  # two sources have the same ids
            "available_at": picked["time"] + timedelta(seconds=40),
            "title": titles,
            "text_hash": text_hashes(titles),
            "source": pl.Series(["one", "two"] * 60),
            "positive": np.where(tone > 0, 0.8, 0.1),
            "negative": np.where(tone < 0, 0.8, 0.1),
            "neutral": np.where(tone == 0, 0.8, 0.1),
        }
    )
    months = articles["available_at"].dt.strftime("%Y-%m")
    detail = {"model": "tiny", "revision": "abcdef0123456789", "scorer": "tiny-1/headline"}
    for month in months.unique().sort():
        for dataset in ("silver/sentiment", "bronze/articles"):
            table = articles.filter(months == month).to_arrow()
            manifest = Manifest("k", table_hash(table), table.num_rows, table.num_rows, detail=detail)
            lake.write(dataset, {"instrument": settings.instrument, "month": month}, table, manifest)
    catalog = build_catalog(settings.features, (*REQUIRED, NEWS))
    for partition, table in list(lake.scan("silver/features", instrument=settings.instrument)):
        frame = pl.DataFrame(table)
        made = {n: rng.normal(size=len(frame)) * 1e-3 for n in catalog.names if n not in frame.columns}
        stored = frame.with_columns(**made).to_arrow()
        manifest = Manifest("test", table_hash(stored), stored.num_rows, stored.num_rows)
        lake.write("silver/features", partition, stored, manifest)


@pytest.fixture
def built(ray_local: None, tracked_home: Path) -> Settings:
    from marketray.dataset.stage import run_dataset

    settings = small_settings(tracked_home, features={"groups": ["returns", "lags", "news"]})
    bars = xnys_bars()
    write_inputs(settings, bars)
    write_news(settings, bars)
    run_dataset(settings)
    write_tuning(settings)
    return settings


def test_the_ablation_is_on_identical_rows_and_can_be_worked_out_again(built: Settings) -> None:
    run_select(built)
    selection, report, page = documents(built)
    found = selection["ablation"]
    assert report["selection"]["ablation"] == found
    news = set(news_features(built))
    assert found["features"] == sorted(news)
    assert {"news_avg_sentiment_60m", "news_impulse_15m"} <= news < set(load_blocks(built).columns)
    assert [row["family"] for row in found["families"]] == ["ar", "lightgbm", "xgboost"]
    train, test = load_blocks(built), load_blocks(built, ("test",))
    tuning = json.loads((built.run_path / "tuning.json").read_text())["families"]
    for row in found["families"]:
        pair, name = row["splits"]["test"], row["family"]
        params, rounds = dict(tuning[name]["params"]), tuning[name]["rounds"]
        errors = {}
        for key in ("with", "without"):
            own = params | ({"exogenous": "news" if key == "with" else "none"} if name == "ar" else {})
            keep = [c for c in train.columns if key == "with" or c not in news]
            files = refit(name, own, rounds, train.select(keep), task="regression", threads=1, seed=42)
            model = load_model(unpacked(built.home_path / f"{name}-{key}", files))
            errors[key] = (test.y - model.predict(test.select(model.columns).values)) ** 2
            assert pair["rmse_pct"][key] == pytest.approx(100 * np.sqrt(errors[key].mean()), rel=1e-6)
            skill = 1 - errors[key].sum() / np.sum(test.y**2)
            assert pair["r2_oos"][key] == pytest.approx(skill, abs=1e-6)
        again = diebold_mariano(errors["with"], errors["without"], test.decision_us, 30).p_value
        assert pair["p_value"] == pytest.approx(again, rel=1e-2)
        assert (pair["n"], row["splits"]["oot2"]["n"]) == (len(test), selection["splits"]["oot2"]["rows"])
        assert row["best_trial"] == ("without" if name == "ar" else "with")
    assert found["scorers"] == [{"model": "tiny", "revision": "abcdef0123456789"}]
    assert load_split(built).detail["scorer"] == "tiny-1/headline"
    card = json.loads((built.run_path / "models" / "selected" / "serving.json").read_text())
    assert card["scorer"] == (None if news.isdisjoint(card["columns"]) else "tiny-1/headline")

    articles = pl.concat([pl.DataFrame(t) for _, t in Lake(built.lake_uri).scan("silver/sentiment")])
    times = articles["available_at"].to_physical().to_numpy()
    for window, minutes in (("60m", 60), ("24h", 1_440)):
        age = test.decision_us[:, None] - times[None, :]
        share = ((age > 0) & (age <= minutes * MINUTE)).any(axis=1).mean()
        assert found["coverage"]["test"][window] == pytest.approx(share)
    decisions, y = np.r_[train.decision_us, test.decision_us], np.r_[train.y, test.y]
    labels, tones, words = [], [], []
    for at, row in zip(times, articles.iter_rows(named=True), strict=True):
        later = np.flatnonzero(decisions > at)
        if len(later) and decisions[later[0]] - at <= 1_440 * MINUTE:
            labels.append(y[later[0]])
            tones.append(row["positive"] - row["negative"])
            words.append(lexicon_scores([row["title"]])[0])
    worth = found["sentiment"]
    assert (worth["articles"], worth["labelled"]) == (120, len(labels))
    assert worth["model_ic"] == pytest.approx(np.corrcoef(labels, tones)[0, 1])
    assert worth["lexicon_ic"] == pytest.approx(np.corrcoef(labels, words)[0, 1])

    assert "With and without the news" in page
    assert "Scored by tiny (revision abcdef012345)" in page
    console = Console(width=80)
    with console.capture() as captured:
        console.print(ablation_table(found))
    assert "xgboost" in captured.get()
    assert "hyperparameters" in ablation_notes(found)[0]


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_the_models_of_the_ablation_never_see_the_vault(built: Settings) -> None:
    pairs = rank_candidates(built).pairs
    files = {p: p.read_bytes() for pair in pairs for f in pair.folders.values() for p in f.iterdir()}
    Lake(built.lake_uri).delete(VAULT)
    for path in (built.run_path / "ranking.json", *files):
        path.unlink()
    assert rank_candidates(built).pairs == pairs
    assert {p: p.read_bytes() for p in files} == files


def test_nothing_is_shown_without_news(ray_local: None, tracked_home: Path) -> None:
    from marketray.dataset.stage import run_dataset

    settings = small_settings(tracked_home)
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    write_tuning(settings)
    run_select(settings)
    selection, _, page = documents(settings)
    assert selection["ablation"] is None
    assert "With and without the news" not in page
    assert not list((settings.run_path / "models").rglob("*news*"))


def candidate(family: str, **params: Any) -> Candidate:
    return Candidate(family, params, 1, 0.002, f"{family}-1", Path("p"))


@pytest.mark.parametrize(
    ("exogenous", "best", "other"),
    [
        ("none", "without", "news"),
        ("order_flow", "without", "order_flow+news"),
        ("news", "with", "none"),
        ("order_flow+news", "with", "order_flow"),
    ],
)
def test_an_autoregression_takes_or_leaves_the_news_among_its_exogenous_columns(
    exogenous: str, best: str, other: str
) -> None:
    (pair,) = plan_pairs(
        {"ar": candidate("ar", lags=3, exogenous=exogenous)}, {"ar": Path("m/ar")}, ("news_impulse_1h",)
    )
    assert pair.best_has_news == (best == "with")
    assert pair.folders[best] == Path("m/ar")
    assert pair.refit.params == {"lags": 3, "exogenous": other}
    assert pair.refit.leave_out == ({"news_impulse_1h"} if best == "with" else set())


def test_a_difference_is_tested_one_sided_and_too_few_rows_are_not_tested() -> None:
    rng = np.random.default_rng(0)
    y, times = rng.normal(size=2_000) * 1e-3, np.arange(2_000, dtype=np.int64) * MINUTE
    rows = Rows(y, {"zero": np.zeros(2_000)}, times, 30)
    pair = compare_pair(rows, 0.2 * y + rng.normal(size=2_000) * 1e-5, np.zeros(2_000))
    assert pair["r2_difference"] == pytest.approx(0.36, abs=1e-3)
    assert pair["p_value"] < 0.001
    assert compare_pair(rows, np.zeros(2_000), 0.2 * y)["p_value"] > 0.999
    assert compare_pair(rows, np.zeros(2_000), np.zeros(2_000))["p_value"] == 1
    few = Rows(y[:40], {"zero": np.zeros(40)}, times[:40], 30)
    assert compare_pair(few, 0.2 * y[:40], np.zeros(40))["p_value"] is None


def test_an_article_is_labelled_by_the_first_decision_that_knows_it() -> None:
    decisions = np.array([10, 20, 30, 3_000], dtype=np.int64) * MINUTE
    articles = np.array([5, 10, 19, 30, 2_999, 3_000], dtype=np.int64) * MINUTE
    labels = article_labels(articles, decisions, np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(labels, [1.0, 2.0, 2.0, np.nan, 4.0, np.nan])
