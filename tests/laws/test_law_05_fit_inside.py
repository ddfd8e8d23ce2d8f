"""Law 5, fit inside: a fold's training part ends before anything that its scored rows can see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from marketray.dataset.load import Block
from marketray.dataset.splits import make_split
from marketray.evaluation.candidates import refit
from marketray.evaluation.metrics import baselines
from marketray.features.catalog import build_catalog
from marketray.features.fits import StandardScore
from marketray.features.fitted import FittedFeature
from marketray.models import get_family
from marketray.models.base import Prepared
from marketray.settings import FeatureSettings, SplitSettings
from marketray.tuning.trial import Budget, FoldCache, run_trial

MINUTE = 60_000_000


def market(days: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions, label ends and session opens of days of 390 minutes, some of them missing."""
    rng = np.random.default_rng(seed)
    start = np.repeat(np.arange(days) * 1_440, 390)
    decision = start + np.tile(np.arange(390), days)
    kept = rng.random(len(decision)) > 0.05
    decision, start = decision[kept], start[kept]
    return decision * MINUTE, (decision + rng.integers(25, 31, len(decision))) * MINUTE, start * MINUTE


def test_a_fold_is_fitted_on_labels_that_ended_before_it_begins() -> None:
    decision, ended, opened = market()
    split = make_split("X", decision, ended, opened, SplitSettings())
    rows = np.r_[tuple(slice(split.blocks[s].start, split.blocks[s].stop) for s in ("train", "validation"))]
    for fold, (fit, score) in zip(split.cv, split.folds, strict=True):
        first = decision[rows][score][0]
        assert ended[rows][fit].max() <= first
        assert (
            fold.embargoed >= min(390, int(0.01 * fold.start)) * 0.9
        )  # a session, or 1 % of what is fitted on
        assert fit.stop + fold.purged + fold.embargoed == score.start


def test_folds_and_blocks_do_not_depend_on_what_comes_later() -> None:
    """Labels of later rows may change; where earlier blocks end depends on times alone."""
    decision, ended, opened = market()
    split = make_split("X", decision, ended, opened, SplitSettings())
    later = ended.copy()
    later[split.blocks["test"].start :] += 4 * MINUTE
    again = make_split("X", decision, later, opened, SplitSettings())
    assert again.cv == split.cv
    assert [again.blocks[s] for s in ("train", "validation")] == [
        split.blocks[s] for s in ("train", "validation")
    ]


def test_the_training_mean_knows_only_training_labels() -> None:
    rng = np.random.default_rng(1)
    train_y, y = rng.normal(1e-4, 1e-3, 500), rng.normal(0, 1e-3, 50)
    us = np.arange(50, dtype=np.int64) * MINUTE
    names = np.array([f"X@{k}" for k in range(50)])
    values = rng.normal(0, 1e-3, (50, 1)).astype(np.float32)

    def forecasts(labels: np.ndarray) -> dict[str, np.ndarray]:
        return baselines(train_y, Block(names, us, us, us, labels, np.ones(50), ("return_30",), values))

    before, after = forecasts(y), forecasts(y + 0.5)
    for name, forecast in before.items():
        np.testing.assert_array_equal(forecast, after[name])
    assert before["training_mean"][0] == train_y.mean()


FITTED = (
    *build_catalog(FeatureSettings(), ("time", "open", "high", "low", "close", "volume")).fitted,
    FittedFeature("return_30_score", "user", "return_30", StandardScore(), "standard deviations"),
)
COLUMNS = ("return_30", *dict.fromkeys(f.of for f in FITTED if f.of != "return_30"))
FOLDS = ((slice(0, 1_000), slice(1_030, 1_400)), (slice(0, 1_370), slice(1_400, 1_800)))


def rows(seed: int = 0) -> Block:
    """Positive features that grow with time, so that a statistic of other rows is another number."""
    rng = np.random.default_rng(seed)
    n = 2_000
    values = rng.lognormal(-8, 0.5, (n, len(COLUMNS))) * np.linspace(1, 4, n)[:, None]
    values[rng.random(values.shape) < 0.02] = np.nan
    us = np.arange(n, dtype=np.int64) * MINUTE
    y = rng.normal(0, 1e-3, n)
    ids = np.array([f"X@{k}" for k in range(n)])
    return Block(ids, us, us, us, y, np.ones(n), COLUMNS, values.astype(np.float32))


def expected(values: np.ndarray) -> dict[str, list[float]]:
    """The built-in features' parameters for training rows, by NumPy alone."""
    column = {name: values[:, i].astype(float) for i, name in enumerate(COLUMNS)}
    steps = np.linspace(0, 1, 101)
    median = [float(np.nanmedian(column["realized_volatility_20"]))]
    return {
        "volatility_regime": np.nanquantile(column["realized_volatility_20"], [1 / 3, 2 / 3]).tolist(),
        "volatility_high": median,
        "volatility_low": median,
        "volatility_rank": np.nanquantile(column["realized_volatility_60"], steps).tolist(),
        "volume_rank": np.nanquantile(column["volume_ratio_20"], steps).tolist(),
        "range_rank": np.nanquantile(column["range_1"], steps).tolist(),
        "return_30_score": [float(np.nanmean(column["return_30"])), float(np.nanstd(column["return_30"]))],
    }


def parameters(block: Block, k: int) -> dict[str, tuple[float, ...]]:
    cache = FoldCache(get_family("xgboost"), block, FOLDS, Budget(), FITTED)
    return {c.name: c.parameters for c in cache.fitted_columns(k)}


@pytest.mark.parametrize("k", range(len(FOLDS)))
def test_fitted_features_know_the_training_rows_of_their_fold_alone(k: int) -> None:
    block, fit = rows(), FOLDS[k][0]
    found, wanted = parameters(block, k), expected(block.values[fit])
    assert list(found) == list(wanted)
    for name, numbers in wanted.items():
        np.testing.assert_allclose(found[name], numbers, rtol=1e-12, err_msg=name)
    other = block.values.copy()
    other[fit.stop :] = np.random.default_rng(1).normal(3, 5, other[fit.stop :].shape)
    assert parameters(Block(**{**block.__dict__, "values": other}), k) == found


def test_a_fold_s_rows_are_extended_by_its_own_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the family is given, for fitting and for scoring."""
    block, family = rows(), get_family("xgboost")
    given: list[tuple[tuple[str, ...], np.ndarray, np.ndarray]] = []
    prepare = family.prepare

    def note(params: Mapping[str, Any], columns: Any, X: Any, y: Any, **more: Any) -> Prepared:
        given.append((columns, X, more["evaluation"][0]))
        return prepare(params, columns, X, y, **more)

    monkeypatch.setattr(family, "prepare", note)
    *_, last = run_trial(FoldCache(family, block, FOLDS, Budget(), FITTED), {"n_estimators": 10})
    assert last.progress == 200
    for (columns, training, scored), (fit, score) in zip(given[::-1], FOLDS, strict=True):  # latest first
        assert columns == (*COLUMNS, *(f.name for f in FITTED))
        volatility = block.values[:, COLUMNS.index("realized_volatility_20")]
        low, high = expected(block.values[fit])["volatility_regime"]
        for X, part in ((training, fit), (scored, score)):
            np.testing.assert_array_equal(X[:, : len(COLUMNS)], block.values[part])
            v = volatility[part]
            regime = np.where(np.isnan(v), np.nan, np.select([v < low, v < high], [0, 1], 2))
            np.testing.assert_array_equal(X[:, columns.index("volatility_regime")], regime)
        assert np.nanmean(scored[:, columns.index("volatility_rank")]) > 0.6  # it grew since


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "ar"])
@pytest.mark.parametrize("k", range(len(FOLDS)))
def test_groups_by_contribution_know_the_training_rows_of_their_fold_alone(name: str, k: int) -> None:
    """Rows from the fold's scored ones on, and labels, are changed so that another column would lead."""
    block, family, fit = rows(), get_family(name), FOLDS[k][0]
    lags = ("return_1_lag_0", "return_1_lag_1", "order_flow_5")
    noise = np.random.default_rng(3).normal(0, 1, (len(block), len(lags))).astype(np.float32)
    leads = block.values[:, COLUMNS.index("range_1")]
    block.y[:] += np.nan_to_num(leads) + 1e-3 * noise[:, 0]
    whole = Block(**{**block.__dict__, "columns": (*COLUMNS, *lags), "values": np.c_[block.values, noise]})
    other_values, other_y = whole.values.copy(), whole.y.copy()
    other_values[fit.stop :] = np.random.default_rng(1).normal(0, 1, other_values[fit.stop :].shape)
    other_y[fit.stop :] = 10 * (other_values[fit.stop :, 0] + other_values[fit.stop :, -1])
    changed = Block(**{**whole.__dict__, "values": other_values, "y": other_y})
    params: dict[str, Any] = {"exogenous": "order_flow"} if name == "ar" else {}
    one, two = (
        FoldCache(family, b, FOLDS, Budget(), FITTED).ranking(k, params, 10) for b in (whole, changed)
    )
    assert two == one
    assert {g: two.columns(g) for g in two.sizes} == {g: one.columns(g) for g in one.sizes}
    fold = FoldCache(family, changed, FOLDS, Budget(), FITTED)
    everything = (FOLDS[k][0].start, FOLDS[k][1].stop)
    seen = FoldCache(family, changed, [(slice(*everything), FOLDS[k][1])], Budget(), FITTED)
    assert seen.ranking(0, params, 10).order[0] != fold.ranking(k, params, 10).order[0]
    tried = {**params, "n_estimators": 10} if family.boosted else params  # no choice of rounds by scored rows
    by_trials = []
    for b in (whole, changed):
        *_, last = run_trial(FoldCache(family, b, FOLDS, Budget(), FITTED), tried, rank_below=np.inf)
        assert last.contributions is not None
        by_trials.append(last.contributions.folds[k])
    assert by_trials[1] == by_trials[0]


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_the_final_fit_stores_the_parameters_of_its_rows(name: str) -> None:
    block = rows().take(slice(0, 1_800))
    files = refit(name, {}, 5, block, task="regression", threads=1, seed=0, fitted=FITTED)
    stored = json.loads(files["model.json"])["fitted"]
    for column, (wanted, numbers) in zip(stored, expected(block.values).items(), strict=True):
        assert column["name"] == wanted
        np.testing.assert_allclose(column["parameters"], numbers, rtol=1e-12)
