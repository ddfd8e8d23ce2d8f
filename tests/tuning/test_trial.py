"""A trial's score against a plain cross-validation written out here."""

from __future__ import annotations

import numpy as np
import pytest

from marketray.features.fits import QuantileCuts, StandardScore
from marketray.features.fitted import FittedFeature
from marketray.models import get_family
from marketray.tuning.trial import Budget, FoldCache, run_trial, zero_rmse
from tests.tuning.rows import block, folds

PARAMS = {
    "xgboost": {"learning_rate": 0.1, "n_estimators": 200, "max_depth": 3},
    "lightgbm": {"learning_rate": 0.1, "n_estimators": 200, "num_leaves": 8, "max_bin": 64},
    "ar": {"lags": 2, "exogenous": "none", "ridge": 0.0},
}


def cache(family: str, **budget: object) -> FoldCache:
    return FoldCache(get_family(family), block(), folds(), Budget(**budget))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", list(PARAMS))
@pytest.mark.parametrize("task", ["regression", "direction"])
def test_score_is_the_mean_relative_rmse_of_purged_folds(family: str, task: str) -> None:
    if task not in get_family(family).tasks:
        return
    rows = block()
    y = rows.y if task == "regression" else (rows.y > 0).astype(float)
    columns = get_family(family).columns(rows.columns)
    X = rows.select(columns).values
    rmse, zero, rounds, predictions = [], [], [], []
    for fit, score in folds():
        model = get_family(family).fit(
            PARAMS[family],
            columns,
            X[fit],
            y[fit],
            task=task,  # type: ignore[arg-type]
            seed=7,
            evaluation=(X[score], y[score]),
        )
        p = model.predict(X[score])
        rmse.append(np.sqrt(np.mean((y[score] - p) ** 2)))
        zero.append(np.sqrt(np.mean((y[score] - (0.5 if task == "direction" else 0)) ** 2)))
        rounds.append(model.rounds)
        predictions.append(p)
    last = list(run_trial(cache(family, task=task, seed=7), PARAMS[family]))[-1]
    assert last.progress == 300
    np.testing.assert_allclose(last.fold_rmse, rmse, rtol=1e-6)
    np.testing.assert_allclose(last.fold_zero_rmse, zero, rtol=1e-12)
    assert last.fold_rounds == tuple(rounds)
    assert last.score == pytest.approx(np.mean(np.array(rmse) / zero), rel=1e-6)
    assert last.predictions is not None
    assert last.predictions.dtype == np.float32
    np.testing.assert_allclose(last.predictions, np.concatenate(predictions), rtol=1e-4, atol=1e-8)


def test_fitted_features_of_each_fold_are_those_of_its_training_rows() -> None:
    """Against columns made by hand; the autoregression takes none."""
    rows = block()
    fitted = (
        FittedFeature("x1_score", "g", "x1", StandardScore(), "sd"),
        FittedFeature("x0_class", "g", "x0", QuantileCuts((0.5,)), "class"),
    )
    plain, X = tuple(f"x{k}" for k in range(4)), rows.values[:, 4:]
    for family, params in PARAMS.items():
        extended = FoldCache(get_family(family), rows, folds(), Budget(), fitted)
        *_, last = run_trial(extended, params)
        if family == "ar":
            *_, alone = run_trial(cache(family), params)
            assert last.fold_rmse == alone.fold_rmse
            continue
        expected = []
        for fit, score in folds():
            x0, x1 = X[fit, 0].astype(float), X[fit, 1].astype(float)
            made = np.column_stack([(X[:, 1] - x1.mean()) / x1.std(), X[:, 0] >= np.median(x0)])
            whole = np.column_stack([X, made]).astype(np.float32)
            model = get_family(family).fit(
                params,
                (*plain, "x1_score", "x0_class"),
                whole[fit],
                rows.y[fit],
                evaluation=(whole[score], rows.y[score]),
            )
            expected.append(np.sqrt(np.mean((rows.y[score] - model.predict(whole[score])) ** 2)))
        np.testing.assert_allclose(last.fold_rmse, expected, rtol=1e-6)


def test_rungs_of_boosted_and_of_linear_families() -> None:
    def progress(family: str) -> list[int]:
        return [r.progress for r in run_trial(cache(family), PARAMS[family])]

    assert progress("xgboost") == progress("lightgbm") == [11, 33, 100, 200, 300]
    assert progress("ar") == [100, 200, 300]


def test_a_trial_that_ends_before_a_rung_reports_it_anyway() -> None:
    params = {**PARAMS["xgboost"], "learning_rate": 0.01, "n_estimators": 20}
    reports = list(run_trial(cache("xgboost"), params))
    assert [r.progress for r in reports] == [11, 33, 100, 200, 300]
    assert reports[0].score == reports[1].score == reports[2].score


def test_rungs_come_at_equal_learning_rate_times_rounds() -> None:
    for rate in (0.02, 0.1):
        c = cache("xgboost")
        steps = run_trial(c, {**PARAMS["xgboost"], "learning_rate": rate, "n_estimators": 1_000})
        first = next(steps)
        full = get_family("xgboost").start(
            c.prepared(0, PARAMS["xgboost"]), {**PARAMS["xgboost"], "learning_rate": rate}
        )
        scores = []
        for _ in range(round(1 / rate / 10)):
            full.advance(10)
            y = c.y[folds()[0][1]]
            scores.append(np.sqrt(np.mean((y - full.predictions()) ** 2)))
        assert first.score * zero_rmse(c.y[folds()[0][1]], "regression") == pytest.approx(
            min(scores), rel=1e-9
        )


def test_binned_rows_are_built_once_and_few_kinds_are_kept() -> None:
    c = cache("lightgbm")
    first = c.prepared(0, PARAMS["lightgbm"])
    assert c.prepared(0, {**PARAMS["lightgbm"], "num_leaves": 31}) is first
    for bins in (32, 48, 96, 128):
        c.prepared(0, {**PARAMS["lightgbm"], "max_bin": bins})
    assert c.prepared(0, PARAMS["lightgbm"]) is not first


def test_nothing_after_a_fold_changes_it() -> None:
    """Rows behind the end of fold 1 are noise: fold 1's predictions stay."""
    rows = block()
    end = folds()[0][1].stop
    values = rows.values.copy()
    values[end:] = np.random.default_rng(1).standard_normal(values[end:].shape)
    noisy = type(rows)(
        **{**rows.__dict__, "values": values, "y": np.r_[rows.y[:end], np.ones(len(rows.y) - end)]}
    )
    n = folds()[0][1].stop - folds()[0][1].start
    for family, params in PARAMS.items():
        parts = []
        for b in (rows, noisy):
            last = list(run_trial(FoldCache(get_family(family), b, folds(), Budget()), params))[-1]
            assert last.predictions is not None
            parts.append(last.predictions[:n])
        np.testing.assert_array_equal(parts[0], parts[1])
