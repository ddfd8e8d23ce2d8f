"""A trial's score against a plain cross-validation written out here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marketray.features.fits import QuantileCuts, StandardScore
from marketray.features.fitted import FittedFeature
from marketray.models import get_family
from marketray.models.training import EarlyStopping, Training
from marketray.tuning.trial import Budget, FoldCache, run_trial, rung_name
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


def sampled_cache(family: str) -> FoldCache:
    """Rows enough for a rung on every third row."""
    size = 36_000
    return FoldCache(get_family(family), block(size), folds(size), Budget(seed=7))


def test_a_rung_before_the_folds_where_a_sample_saves_rounds() -> None:
    def progress(c: FoldCache) -> list[int]:
        return [r.progress for r in run_trial(c, {**PARAMS[c.family.name], "n_estimators": 20})]

    assert progress(sampled_cache("xgboost")) == progress(sampled_cache("lightgbm")) == [10, 100, 200, 300]
    assert [r.progress for r in run_trial(sampled_cache("ar"), PARAMS["ar"])] == [100, 200, 300]
    assert progress(cache("xgboost")) == [100, 200, 300]
    c = sampled_cache("xgboost")
    reports = list(run_trial(c, {**PARAMS["xgboost"], "n_estimators": 20}, sample=False))
    assert [r.progress for r in reports] == [100, 200, 300]
    assert [r.fold_rmse for r in reports[:2]] == [reports[2].fold_rmse[2:], reports[2].fold_rmse[1:]]
    zero = [np.sqrt(np.mean(c.y[score] ** 2)) for _, score in c.folds]
    assert reports[0].score == pytest.approx(reports[0].fold_rmse[0] / zero[2], rel=1e-12)  # the latest first


@pytest.mark.parametrize(("rows", "stride"), [(29_999, 1), (30_000, 3), (61_000, 6), (500_000, 8)])
def test_the_sample_keeps_at_least_10_000_rows(rows: int, stride: int) -> None:
    cut = [(slice(0, 100), slice(100, 200)), (slice(0, rows), slice(rows, rows + 100))]
    small = block(rows + 100, lags=1, features=1)
    assert FoldCache(get_family("lightgbm"), small, cut, Budget()).sample_stride == stride


@pytest.mark.parametrize("family", ["xgboost", "lightgbm"])
@pytest.mark.parametrize(("rate", "patience"), [(0.3, 1), (0.04, 3), (0.005, 10)])
def test_the_sample_is_every_third_row_of_the_last_fold_and_its_patience_follows_the_learning_rate(
    family: str, rate: float, patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    class Seen(EarlyStopping):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            used.append(self.patience)

    monkeypatch.setattr("marketray.tuning.trial.EarlyStopping", Seen)
    c, params = sampled_cache(family), {**PARAMS[family], "learning_rate": rate}
    steps = run_trial(c, params)
    first, _ = next(steps), next(steps)
    assert used == [patience, 10]  # 10: of a final score
    fit, score = c.folds[-1]
    columns = get_family(family).columns(c.block.columns)
    X, y = c.block.select(columns).values, c.block.y
    model = get_family(family).fit(
        params,
        columns,
        X[fit][::3],
        y[fit][::3],
        seed=7,
        evaluation=(X[score], y[score]),
        patience=patience,
    )
    rmse = np.sqrt(np.mean((y[score] - model.predict(X[score])) ** 2))
    assert first.score == pytest.approx(rmse / np.sqrt(np.mean(y[score] ** 2)), rel=1e-6)


class Curve(Training):
    """A fit whose RMSE on labels of 0 falls from 1 to 0.9."""

    max_rounds = 600

    def advance(self, rounds: int) -> None:
        self.rounds += rounds

    def predictions(self) -> Any:
        return np.full(4, self.rmse(self.rounds))

    @staticmethod
    def rmse(rounds: float) -> float:
        return float(0.9 + 0.1 * np.exp(-rounds / 50))

    def model(self, rounds: int) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("limit", [0.95, 0.9001, 0.9, 0.89, 0.8, 0.5])
def test_a_fit_ends_where_twice_its_latest_gain_leaves_it_above_the_limit(limit: float) -> None:
    stopping = EarlyStopping(Curve(), np.zeros(4), limit=limit, settled=100)
    while not stopping.finished:
        stopping.advance()

    def hopeless(r: int) -> bool:
        now, half = Curve.rmse(r), Curve.rmse(r // 20 * 10)
        return r >= 100 and now >= limit and now - 2 * (half - now) >= limit

    expected = next((r for r in range(10, 600, 10) if hopeless(r)), 600)
    assert stopping.training.rounds == expected
    assert (expected < 600) == (limit < 0.9)  # never where it can be reached


@pytest.mark.parametrize("family", ["xgboost", "lightgbm"])
def test_a_trial_that_will_be_cut_stops_early_and_others_do_not_change(family: str) -> None:
    c, params = cache(family), {**PARAMS[family], "n_estimators": 400}
    *_, whole = run_trial(c, params)
    reports = list(run_trial(c, params))
    easy = list(run_trial(c, params, limits={100: 1.1, 200: 1.1}))
    assert [r.fold_rmse for r in easy] == [r.fold_rmse for r in reports]
    advanced: list[int] = []
    start = c.family.start

    def counted(*args: Any, **more: Any) -> Training:
        training = start(*args, **more)
        plain = training.advance

        def advance(rounds: int) -> None:
            plain(rounds)
            advanced.append(training.rounds)

        training.advance = advance  # type: ignore[method-assign]
        return training

    for limits, folds_done in (({100: 0.5}, 1), ({100: 1.1, 200: 0.5}, 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(c.family, "start", counted)
            advanced.clear()
            found = list(zip(range(folds_done), run_trial(c, params, limits=limits), strict=False))[-1][1]
        assert found.score >= 0.5
        assert found.fold_rmse[1:] == whole.fold_rmse[len(whole.fold_rmse) - folds_done + 1 :]
        assert found.fold_rmse[0] >= whole.fold_rmse[len(whole.fold_rmse) - folds_done]
        assert advanced[-1] == 100  # no sooner than the patience, which here is longer than 2 / learning rate
    assert min(whole.fold_rounds) + 100 > 100


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


def test_rungs_have_names() -> None:
    assert [rung_name(p) for p in (10.0, 100.0, 200.0)] == ["the sample", "1 fold", "2 folds"]
