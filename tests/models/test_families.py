"""Every family passes the conformance suite; what is special to one is tested beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from marketray.errors import ModelError
from marketray.models import FAMILY_NAMES, get_family, load_model
from marketray.models.autoregression import exogenous_columns, exogenous_sets, join_sets, split_sets
from tests.models.conformance import COLUMNS, FamilyConformance, market


class TestXGBoost(FamilyConformance):
    family_name = "xgboost"
    params: ClassVar[dict[str, object]] = {"n_estimators": 80, "max_depth": 3}


class TestLightGBM(FamilyConformance):
    family_name = "lightgbm"
    params: ClassVar[dict[str, object]] = {"n_estimators": 80, "num_leaves": 8, "learning_rate": 0.1}


class TestAutoregression(FamilyConformance):
    family_name = "ar"
    params: ClassVar[dict[str, object]] = {"lags": 4, "exogenous": "order_flow", "ridge": 1e-3}


class TestZero(FamilyConformance):
    family_name = "zero"
    params: ClassVar[dict[str, object]] = {}
    skill = False


class TestTrainingMean(FamilyConformance):
    family_name = "training_mean"
    params: ClassVar[dict[str, object]] = {}
    skill = False


class TestLastReturn(FamilyConformance):
    family_name = "last_return"
    params: ClassVar[dict[str, object]] = {"column": "return_30"}
    skill = False


def test_xgboost_fits_on_the_gpu_or_refuses() -> None:
    """It learns about the same there; where there is none it does not turn to the CPU by itself."""
    import torch

    X, y = market()
    family, columns, params = get_family("xgboost"), COLUMNS[6:], {"n_estimators": 80, "max_depth": 3}
    prepared = family.prepare(params, columns, X[:, 6:], y, evaluation=(X[:, 6:], y))
    if not torch.cuda.is_available():
        with pytest.raises(
            ModelError, match="device='cuda', but XGBoost uses 'cpu': it finds no CUDA device"
        ):
            family.start(prepared, params, device="cuda")
        return
    error = {}
    for device in ("cpu", "cuda"):
        training = family.start(prepared, params, device=device)  # type: ignore[arg-type]
        training.advance(80)
        error[device] = np.sqrt(np.mean((y - training.predictions()) ** 2))
        assert np.all(np.isfinite(training.model(80).predict(X[:, 6:])))
    assert error["cuda"] == pytest.approx(error["cpu"], rel=0.02)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
class TestTrees:
    def test_take_everything_but_the_lags(self, name: str) -> None:
        assert get_family(name).columns(COLUMNS) == COLUMNS[6:]

    def test_missing_values_are_allowed(self, name: str) -> None:
        X, y = market()
        X = X[:, 6:].copy()
        X[::3, 1] = np.nan
        model = get_family(name).fit({"n_estimators": 20}, COLUMNS[6:], X, y)
        assert np.isfinite(model.predict(X)).all()

    def test_rounds_are_cut_at_the_best(self, name: str) -> None:
        X, y = market(600)
        X_new, y_new = market(600, seed=5)
        family = get_family(name)
        params = {"n_estimators": 400, "learning_rate": 0.3}
        model = family.fit(
            params, COLUMNS[6:], X[:, 6:], y, evaluation=(X_new[:, 6:], y_new), patience=3, round_step=5
        )
        assert 0 < model.rounds < 100
        # A fit of exactly that many rounds is the same model.
        fixed = family.fit(family.with_rounds(params, model.rounds), COLUMNS[6:], X[:, 6:], y)
        np.testing.assert_allclose(fixed.predict(X_new[:, 6:]), model.predict(X_new[:, 6:]), rtol=1e-6)

    def test_nothing_to_split_predicts_the_mean(self, name: str) -> None:
        X, y = market(300)
        X_new, y_new = market(50, seed=1)
        model = get_family(name).fit(
            {"n_estimators": 30},
            COLUMNS[6:],
            np.zeros_like(X[:, 6:]),
            y,
            evaluation=(X_new[:, 6:], y_new),
        )
        np.testing.assert_allclose(model.predict(X_new[:, 6:]), y.mean(), atol=0.03 * y.std())
        assert sum(model.importance().values()) == 0


class TestLeastSquares:
    def test_columns_are_lags_then_exogenous(self) -> None:
        columns = get_family("ar").columns(COLUMNS)
        assert columns == (*COLUMNS[:6], "realized_volatility_30", "weighted_body_30")
        assert get_family("ar").columns(("return_1_lag_0", "return_1_lag_2")) == ("return_1_lag_0",)

    def test_is_ordinary_least_squares(self) -> None:
        X, y = market()
        columns = get_family("ar").columns(COLUMNS)
        index = [COLUMNS.index(c) for c in columns]
        model = get_family("ar").fit({"lags": 3, "exogenous": "none", "ridge": 0.0}, columns, X[:, index], y)
        design = np.column_stack([np.ones(len(y)), X[:, :3]]).astype(float)
        beta, *_ = np.linalg.lstsq(design, y, rcond=None)
        np.testing.assert_allclose(model.predict(X[:, index]), design @ beta, rtol=1e-6, atol=1e-12)

    def test_ridge_is_the_closed_form(self) -> None:
        X, y = market()
        columns = get_family("ar").columns(COLUMNS)
        X = X[:, [COLUMNS.index(c) for c in columns]]
        model = get_family("ar").fit({"lags": 5, "exogenous": "none", "ridge": 0.7}, columns, X, y)
        used = X[:, :5].astype(float)
        z = (used - used.mean(0)) / used.std(0)
        beta = np.linalg.solve(z.T @ z / len(y) + 0.7 * np.eye(5), z.T @ (y - y.mean()) / len(y))
        np.testing.assert_allclose(model.predict(X), z @ beta + y.mean(), rtol=1e-6, atol=1e-12)

    def test_missing_lag_is_refused_and_missing_exogenous_is_its_training_mean(self) -> None:
        X, y = market()
        columns = get_family("ar").columns(COLUMNS)
        X = X[:, [COLUMNS.index(c) for c in columns]].copy()
        model = get_family("ar").fit({"lags": 2, "exogenous": "order_flow"}, columns, X, y)
        gap, mean = X[:1].copy(), X[:1].copy()
        gap[0, -1], mean[0, -1] = np.nan, X[:, -1].astype(float).mean()
        np.testing.assert_allclose(model.predict(gap), model.predict(mean), rtol=1e-5)
        gap[0, 1] = np.nan
        with pytest.raises(ModelError, match=r"ar: \['return_1_lag_1'\] hold NaN"):
            model.predict(gap)

    def test_missing_news_is_no_news(self) -> None:
        X, y = market()
        columns = ("return_1_lag_0", "realized_volatility_x", "news_avg_sentiment_60m")
        X = X[:, [0, 7, 8]].copy()
        X[:, 1:] += 0.5  # a mean far from 0
        X[::3, 2] = np.nan
        model = get_family("ar").fit({"lags": 1, "exogenous": "volatility+news"}, columns, X, y)
        filled = np.nan_to_num(X)
        np.testing.assert_array_equal(model.predict(X), model.predict(filled))
        design = np.column_stack([np.ones(len(y)), filled]).astype(float)
        beta, *_ = np.linalg.lstsq(design, y, rcond=None)
        np.testing.assert_allclose(model.predict(X), design @ beta, rtol=1e-5, atol=1e-10)

    def test_exogenous_sets_are_those_with_columns_and_join(self) -> None:
        assert exogenous_sets(COLUMNS) == ("none", "volatility", "order_flow")
        assert exogenous_sets(("news_impulse_1h",)) == ("none", "news")
        both = ("order_flow_30", "news_impulse_1h", "news_avg_sentiment_60m", "news_minutes_since")
        assert exogenous_sets(both) == ("none", "order_flow", "news", "order_flow+news")
        assert exogenous_columns("order_flow+news", both) == both[:3]
        assert exogenous_columns("none", both) == ()
        for name in ("none", "news", "order_flow+news"):
            assert join_sets(split_sets(name)) == name

    def test_a_constant_column_changes_nothing(self) -> None:
        X, y = market()
        columns = ("return_1_lag_0", "order_flow_x")
        flat = np.column_stack([X[:, 0], np.full(len(X), 0.25, np.float32)])
        with_it = get_family("ar").fit({"lags": 1, "exogenous": "order_flow"}, columns, flat, y)
        without = get_family("ar").fit({"lags": 1}, columns, flat, y)
        np.testing.assert_allclose(with_it.predict(flat), without.predict(flat), rtol=1e-9)

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"lags": 7}, "lags=7; required: 1 to 6"),
            ({"exogenous": "moon"}, "exogenous='moon'; required: none, or one or more of"),
            ({"exogenous": "news+news"}, "exogenous='news.news'; required"),
        ],
    )
    def test_unusable_parameters(self, params: dict[str, object], message: str) -> None:
        X, y = market()
        with pytest.raises(ModelError, match=message):
            get_family("ar").fit(params, COLUMNS, X, y)

    def test_needs_lags_and_a_fit(self) -> None:
        X, y = market()
        with pytest.raises(ModelError, match="hold no return_1_lag_0"):
            get_family("ar").fit({}, COLUMNS[6:], X[:, 6:], y)
        family = get_family("ar")
        with pytest.raises(ModelError, match="before the fit"):
            family.start(family.prepare({}, COLUMNS, X, y), {}).model(1)


class TestBaselines:
    def test_values(self) -> None:
        X, y = market()
        assert get_family("zero").fit({}, COLUMNS, X, y).predict(X).tolist() == [0.0] * len(X)
        np.testing.assert_allclose(get_family("training_mean").fit({}, COLUMNS, X, y).predict(X), y.mean())
        last = get_family("last_return").fit({"column": "return_30"}, COLUMNS, X, y).predict(X)
        np.testing.assert_array_equal(last, X[:, 6].astype(float))

    def test_refusals(self) -> None:
        X, y = market()
        with pytest.raises(ModelError, match="column='return_7' is not among the columns"):
            get_family("last_return").fit({"column": "return_7"}, COLUMNS, X, y)
        model = get_family("last_return").fit({}, COLUMNS, X, y)
        X[0, 6] = np.nan
        with pytest.raises(ModelError, match="return_30 holds NaN"):
            model.predict(X)
        family = get_family("zero")
        with pytest.raises(ModelError, match="no evaluation rows were given"):
            family.start(family.prepare({}, COLUMNS, X, y), {}).predictions()


def test_unknown_family_and_incomplete_description(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="family='prophet'; required: one of"):
        get_family("prophet")
    assert {get_family(name).name for name in FAMILY_NAMES} == set(FAMILY_NAMES)
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "family": "zero"}))
    with pytest.raises(ModelError, match="lacks the key 'columns'"):
        load_model(tmp_path)
