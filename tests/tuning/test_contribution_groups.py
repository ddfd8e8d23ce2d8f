"""Groups of columns by contribution: each fold its own, chosen in stage 2, refitted on their own ranking."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marketray.dataset.load import Block
from marketray.errors import TuningError
from marketray.evaluation.candidates import read_tuning, refit
from marketray.features.fits import PercentileRank, StandardScore
from marketray.features.fitted import FittedFeature
from marketray.models import get_family
from marketray.models.contribution import Ranking, rank_columns
from marketray.settings import Settings, TuningSettings
from marketray.tuning.contributions import rank_folds, read_contributions, write_contributions
from marketray.tuning.family import fine_space
from marketray.tuning.records import read_records, write_json
from marketray.tuning.spaces import Choice, first_space, grouped, narrowed
from marketray.tuning.stage import tune_block, tuning_key
from marketray.tuning.trial import Budget, FoldCache, mean_rounds, run_trial
from tests.tuning.rows import block, folds
from tests.tuning.test_stage import put_dataset

PARAMS = {"learning_rate": 0.1, "n_estimators": 60, "max_depth": 3}
FITTED = (
    FittedFeature("x1_rank", "g", "x1", PercentileRank(), "fraction"),
    FittedFeature("x2_score", "g", "x2", StandardScore(), "sd"),
)
NAMES = (*(f"x{k}" for k in range(8)), "x1_rank", "x2_score")
ROWS = 2_000


def shifting() -> Block:
    """In the first half of the rows x0 and x1 rule, later x6 and x7: the folds rank differently."""
    rows = block(ROWS, features=8)
    first, later = rows.values[:, 4:6].sum(axis=1), rows.values[:, 10:12].sum(axis=1)
    signal = np.where(np.arange(ROWS) < ROWS // 2, first, 2 * later).astype(float)
    return replace(rows, y=signal + 0.3 * rows.y)


def ranking(*best: str) -> Ranking:
    """A ranking in which these columns have nine tenths of the contributions."""
    rest = [name for name in NAMES if name not in best]
    return Ranking(dict.fromkeys(best, 0.9 / len(best)) | dict.fromkeys(rest, 0.1 / len(rest)))


def test_a_trial_of_a_group_is_a_cross_validation_on_each_fold_s_own_columns() -> None:
    rows = shifting()
    chosen = (("x0", "x1", "x2", "x1_rank"), ("x0", "x3", "x7"), ("x5", "x6", "x7", "x2_score"))
    rankings = [ranking(*best) for best in chosen]
    cache = FoldCache(get_family("xgboost"), rows, folds(ROWS), Budget(seed=7), FITTED, rankings)
    *_, last = run_trial(cache, {**PARAMS, "feature_group": "knee"})
    rmse = []
    for (fit, score), best in zip(folds(ROWS), chosen, strict=True):
        X = rows.values[:, 4:]
        values, mean = X[fit, 2].astype(float), X[fit, 2].astype(float).mean()
        levels = np.quantile(X[fit, 1].astype(float), np.linspace(0, 1, 101))
        made = {
            "x1_rank": np.interp(X[:, 1], levels, np.linspace(0, 1, 101)),
            "x2_score": (X[:, 2] - mean) / values.std(),
            **{f"x{k}": X[:, k] for k in range(8)},
        }
        Z = np.column_stack([made[name] for name in best]).astype(np.float32)
        model = get_family("xgboost").fit(
            PARAMS, best, Z[fit], rows.y[fit], seed=7, evaluation=(Z[score], rows.y[score])
        )
        rmse.append(np.sqrt(np.mean((rows.y[score] - model.predict(Z[score])) ** 2)))
    np.testing.assert_allclose(last.fold_rmse, rmse, rtol=1e-6)
    *_, whole = run_trial(cache, {**PARAMS, "feature_group": "all"})
    *_, plain = run_trial(cache, PARAMS)
    assert whole.fold_rmse == plain.fold_rmse != last.fold_rmse


def test_folds_that_are_not_ranked_have_no_groups() -> None:
    cache = FoldCache(get_family("xgboost"), block(), folds(), Budget())
    with pytest.raises(TuningError, match="feature_group='knee', but the folds are not ranked; required: a"):
        next(run_trial(cache, {**PARAMS, "feature_group": "knee"}))


def test_trees_choose_among_the_groups_and_start_with_all() -> None:
    rankings = (ranking("x0", "x1", "x2"), ranking("x3", "x4", "x5", "x6"))
    first = first_space("xgboost", max_rounds=600)
    best = dict(first.start)
    fine = fine_space("xgboost", first, best, rankings)
    assert fine.parameters[-1] == Choice("feature_group", ("70–90%", "all"))
    assert fine.parameters[:-1] == narrowed(first, best).parameters
    assert dict(fine.start) == {**best, "feature_group": "all"}
    assert fine_space("xgboost", first, best, ()) == narrowed(first, best)
    assert grouped(first, ("all",)) == first
    linear = first_space("ar")
    assert fine_space("ar", linear, dict(linear.start), rankings) == narrowed(linear, dict(linear.start))


def test_contributions_are_those_of_each_fold_and_read_back(tmp_path: Path) -> None:
    cache = FoldCache(get_family("xgboost"), shifting(), folds(ROWS), Budget(seed=7), FITTED)
    assert read_contributions(tmp_path) is None
    found = rank_folds(cache, PARAMS, 20)
    for k, (fit, _) in enumerate(folds(ROWS)):
        plain = FoldCache(get_family("xgboost"), shifting(), [(fit, fit)], Budget(seed=7), FITTED)
        assert found.folds[k] == plain.ranking(0, PARAMS, 20).shares
    assert set(found.rankings[0].order[:3]) == {"x0", "x1", "x1_rank"}
    importance = found.importance()
    assert [f["fold"] for f in importance["folds"]] == [0, 1, 2]
    assert importance["folds"][1]["shares"] == found.folds[1]
    mean = {name: np.mean([fold[name] for fold in found.folds]) for name in NAMES}
    assert importance["features"] == [
        {"feature": name, "share": pytest.approx(mean[name])}
        for name in sorted(NAMES, key=lambda name: -mean[name])
    ]
    write_contributions(tmp_path, found)
    assert read_contributions(tmp_path) == found
    (tmp_path / "contributions.json").write_text("{")
    with pytest.raises(TuningError, match=r"contributions\.json: not readable as contributions"):
        read_contributions(tmp_path)


@pytest.mark.parametrize("family", ["xgboost", "lightgbm", "ar"])
def test_a_trial_ranks_by_its_own_models_as_fits_made_for_it_would(family: str) -> None:
    params = {"lags": 3, "exogenous": "none", "ridge": 0.1} if family == "ar" else PARAMS
    cache = FoldCache(get_family(family), shifting(), folds(ROWS), Budget(seed=7, patience=1), FITTED)
    *_, last = run_trial(cache, params, rank_below=np.inf)
    rounds = mean_rounds(last.fold_rounds)
    if family != "ar":
        assert min(last.fold_rounds) + 10 < rounds  # a fold goes on for it
    assert last.contributions == replace(rank_folds(cache, params, rounds), seconds=0.0)
    rmse = float(np.mean(last.fold_rmse))
    for below in (0.0, rmse):
        *_, again = run_trial(cache, params, rank_below=below)
        assert again.contributions is None


def test_stage_2_chooses_groups_and_the_result_says_what_counts(ray_local: None, tmp_path: Path) -> None:
    values = {"families": ("xgboost", "ar"), "stage1_trials": 2, "stage2_trials": 5, "max_rounds": 40}
    rows, settings = shifting(), TuningSettings(**values, ar_max_lags=4, pruning=False)  # type: ignore[arg-type]
    result = tune_block(rows, folds(ROWS), settings, tmp_path, fitted=FITTED)
    coarse, fine = (read_records(tmp_path / "xgboost" / f"stage{s}") for s in (1, 2))
    assert all("feature_group" not in r.params for r in coarse)
    stored = read_contributions(tmp_path / "xgboost")
    assert stored is not None
    start = min(coarse, key=lambda r: r.cv_rmse or 1)
    assert (stored.params, stored.rounds) == (start.params, start.rounds)
    assert stored.seconds == 0  # by the trial itself, with no fit of its own
    assert fine[0].params == {**start.params, "feature_group": "all"}
    assert (fine[0].cv_rmse, fine[0].rungs) == (start.cv_rmse, start.rungs)
    assert fine[0].seconds < 0.1  # known already
    assert len({r.params["feature_group"] for r in fine}) > 1
    cache = FoldCache(get_family("xgboost"), rows, folds(ROWS), Budget(seed=42), FITTED, stored.rankings)
    small = next(r for r in fine if r.params["feature_group"] != "all")
    *_, last = run_trial(cache, small.params)
    assert list(last.fold_rmse) == pytest.approx(small.fold_rmse, rel=1e-9)
    best = result.families["xgboost"]
    assert best.ranked_with == {"params": start.params, "rounds": start.rounds}
    assert best.importance == stored.importance()
    linear = result.families["ar"]
    assert "feature_group" not in linear.params
    assert linear.importance is not None
    assert {f["feature"] for f in linear.importance["features"]} == {f"return_1_lag_{k}" for k in range(4)}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert tune_block(rows, folds(ROWS), settings, tmp_path, fitted=FITTED).families == result.families
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_without_groups_nothing_is_ranked(ray_local: None, tmp_path: Path) -> None:
    settings = TuningSettings(families=("ar",), stage1_trials=1, stage2_trials=0, feature_groups=False)
    best = tune_block(block(), folds(), settings, tmp_path).families["ar"]
    assert (best.ranked_with, best.importance) == (None, None)
    assert not list(tmp_path.rglob("contributions.json"))


def test_the_key_follows_the_setting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_dataset(monkeypatch, block(), folds())
    keys = {tuning_key(Settings(home=home, tuning=TuningSettings(feature_groups=on))) for on in (True, False)}
    assert len(keys) == 2


def test_a_candidate_s_refit_ranks_its_own_rows(home: Path) -> None:
    """The last fold ranks x6 and x7 first; the refit sees only early rows here, ruled by x0 and x1."""
    settings, rows = Settings(home=home), shifting().take(slice(0, ROWS // 2))
    best = {
        "params": {**PARAMS, "feature_group": "knee"},
        "rounds": 15,
        "cv_rmse": 1e-3,
        "trial_id": "xgboost-stage2-0003",
        "predictions": "p.parquet",
        "ranked_with": {"params": {**PARAMS, "max_depth": 4}, "rounds": 25},
    }
    write_json(settings.run_path / "tuning.json", {"tuning_key": "k", "families": {"xgboost": best}})
    candidate = read_tuning(settings).candidates["xgboost"]
    assert json.loads(json.dumps(candidate.identity)) == candidate.identity
    files, again = (
        refit("xgboost", candidate.params, candidate.rounds, rows, task="regression", threads=1, seed=7)
        for _ in range(2)
    )
    assert files == again
    X = rows.values[:, 4:]
    order = rank_columns(get_family("xgboost"), {**PARAMS, "max_depth": 4}, 25, NAMES[:8], X, rows.y, seed=7)
    document = json.loads(files["model.json"])
    assert set(document["columns"]) == order.columns("knee") == {"x0", "x1", *order.order[:3]}
    assert (document["params"]["max_depth"], document["rounds"]) == (3, 15)
    assert "feature_group" not in document["params"]
