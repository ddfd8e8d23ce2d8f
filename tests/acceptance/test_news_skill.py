"""The skill that is planted in the simulator's news is found in the text, and adds to that of the bars.

The scores come from the text alone. The long run goes through the whole pipeline and its sentiment model;
the reduced twin scores with the word list and fits each family once with and without the news, so it asks
less of the trees.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from marketray.dataset.labels import label_bars
from marketray.evaluation.ranking_stage import rank_candidates
from marketray.evaluation.significance import diebold_mariano
from marketray.features.catalog import build_catalog
from marketray.features.definition import NEWS
from marketray.features.kernel import compute
from marketray.ingest.sources.simulator import simulate
from marketray.lake import Lake
from marketray.models import get_family, load_model
from marketray.sentiment.lexicon import lexicon_scores
from marketray.sentiment.signals import NEWS_SCHEMA, news_columns
from marketray.sentiment.texts import with_text
from marketray.sessions import trading_sessions
from marketray.settings import Settings, load_settings
from tests.acceptance.test_skill import FAMILIES, MODEST, run

GROUPS = ("returns", "lags", "microstructure", "news")
MINUTE = 60_000_000


def lexicon_news(articles: pl.DataFrame) -> pl.DataFrame:
    """Articles as the signals take them, scored by the word list."""
    tone = lexicon_scores(with_text(articles, "headline_and_body")["text"].to_list())
    scores = {"positive": tone.clip(min=0), "negative": (-tone).clip(min=0), "neutral": 1 - np.abs(tone)}
    made = articles.select("available_at").with_columns(pl.Series(k, v) for k, v in scores.items())
    return made.sort("available_at", maintain_order=True)


def simulated_rows(seed: int, bars: int, news_r2: float) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Features, labels and oracle of one simulation with both effects, rows with complete history only."""
    source = {"kind": "simulator", "bars": bars, "seed": seed, "effect": "all", "news_r2": news_r2}
    settings = load_settings(None, {"source": source, "instrument": "SIM", "features": {"groups": GROUPS}})
    chunks = list(simulate(settings.source, settings.market, "SIM"))  # type: ignore[arg-type]
    table, oracle, articles = (
        pl.DataFrame(pa.concat_tables([getattr(c, name) for c in chunks]))
        for name in ("bars", "oracle", "articles")
    )
    span = table["time"][0].date(), table["time"][-1].date()
    sessions = trading_sessions(settings.market.calendar, *span, settings.market.breaks)
    catalog = build_catalog(settings.features, (*table.columns, NEWS))
    features = compute(catalog, table, sessions, lexicon_news(articles))
    labels = label_bars(table, sessions, settings.labels).select("time", "label_return")
    rows = features.join(labels, on="time").join(oracle, on="decision_at").slice(catalog.lookback)
    return rows.filter(pl.col("label_return").is_not_null()), catalog.names


def added(y: np.ndarray, better: np.ndarray, worse: np.ndarray) -> float:
    """R² over zero of the first forecast minus that of the second."""
    return float((np.mean((y - worse) ** 2) - np.mean((y - better) ** 2)) / np.mean(y**2))


def fitted_predictions(name: str, rows: pl.DataFrame, columns: list[str], train: int) -> np.ndarray:
    """Fit on the first `train` rows; predictions for all rows."""
    family = get_family(name)
    used = family.columns(columns)
    X = rows.select(used).fill_null(float("nan")).to_numpy().astype(np.float32)
    y = rows["label_return"].to_numpy()
    news = any(c.startswith("news_") for c in used)
    params = MODEST[name] | ({"exogenous": "news"} if name == "ar" and news else {})
    return family.fit(params, used, X[:train], y[:train], threads=2, seed=0).predict(X)


def test_news_adds_the_planted_skill_to_every_family() -> None:
    rows, columns = simulated_rows(0, 100_000, 0.05)
    train = int(rows.height * 0.7)
    late = rows[train + 60 :]
    assert late.height >= 12_000
    y, decided = late["label_return"].to_numpy(), late["decision_at"].to_physical().to_numpy()
    planted = added(y, late["all"].to_numpy(), late["market"].to_numpy())
    found = {}
    for name in FAMILIES:
        with_news, without = (
            fitted_predictions(name, rows, [c for c in columns if keep or not c.startswith("news_")], train)
            for keep in (True, False)
        )
        with_news, without = with_news[train + 60 :], without[train + 60 :]
        found[name] = added(y, with_news, without) / planted
        assert diebold_mariano((y - with_news) ** 2, (y - without) ** 2, decided, 30).p_value < 0.01
    assert found["ar"] >= 0.5
    assert statistics.median(found.values()) >= 0.4  # half the rows of the long run, and nothing tuned
    assert min(found.values()) > 0.3


def test_the_signals_can_represent_an_effect_that_fades_over_half_an_hour() -> None:
    """One article: the oracle's weight max(0, 30 - age) as a sum of fading and plain windows."""
    decisions = np.arange(1, 600, dtype=np.int64) * MINUTE
    one = {"available_at": [0], "positive": [1.0], "negative": [0.0], "neutral": [0.0]}
    news = pl.DataFrame(one).with_columns(pl.col("available_at").cast(NEWS_SCHEMA["available_at"]))
    names = ["_news_intensity_15m", "_news_intensity_1h", "_news_mean_15m", "_news_mean_60m"]
    design = np.nan_to_num(np.column_stack(list(news_columns(decisions, news, names).values())))
    effect = np.maximum(30.0 - decisions / MINUTE, 0.0)
    _, rest, *_ = np.linalg.lstsq(design, effect, rcond=None)
    assert rest[0] / np.sum(effect**2) < 0.03


def late_rows(settings: Settings, columns: list[str]) -> pl.DataFrame:
    """Test and OOT rows with the oracle's forecasts; only an acceptance test may look at both."""
    lake, wanted = Lake(settings.lake_uri), ["decision_at", "label_return", *columns]
    splits = (("gold/dataset", "test"), ("gold/vault", "oot"))
    tables = [
        pl.DataFrame(table)
        for dataset, split in splits
        for _, table in lake.scan(dataset, wanted, name=settings.name, split=split)
    ]
    oracle = [pl.DataFrame(t) for _, t in lake.scan("bronze/oracle", instrument=settings.instrument)]
    return pl.concat(tables).join(pl.concat(oracle), on="decision_at", maintain_order="left")


@pytest.mark.slow
def test_half_of_the_skill_planted_in_the_news_is_recovered_in_the_median_of_five_seeds(
    ray_local: None, tmp_path: Path
) -> None:
    found = []
    for seed in range(5):
        settings, report = run(tmp_path, seed, 200_000, "all", 5)
        ranking = rank_candidates(settings)
        pair = next(p for p in ranking.pairs if p.candidate.family == ranking.order[0])
        models = {key: load_model(folder) for key, folder in pair.folders.items()}
        columns = sorted({c for model in models.values() for c in model.columns})
        rows = late_rows(settings, columns)
        assert rows.height >= 12_000
        y = rows["label_return"].to_numpy()
        forecasts = {
            key: model.predict(
                rows.select(model.columns).fill_null(float("nan")).to_numpy().astype(np.float32)
            )
            for key, model in models.items()
        }
        planted = added(y, rows["all"].to_numpy(), rows["market"].to_numpy())
        found.append(added(y, forecasts["with"], forecasts["without"]) / planted)
        for family in report["selection"]["ablation"]["families"]:
            test = family["splits"]["test"]
            print(seed, family["family"], round(test["r2_difference"], 4), f"p = {test['p_value']:.2g}")
    print("recovery of the news by seed", [round(r, 3) for r in found])
    assert statistics.median(found) >= 0.5
