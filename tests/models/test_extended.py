"""Models with fitted columns: the conformance suite, and the columns against NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from marketray.errors import ModelError
from marketray.features.fits import PercentileRank, QuantileCuts, StandardScore
from marketray.features.fitted import FittedFeature
from marketray.models import FAMILY_NAMES, get_family, load_model
from marketray.models.base import FittedModel, Task
from marketray.models.extended import ExtendedModel, fit_extended
from tests.models.conformance import COLUMNS, FamilyConformance, market

FITTED = (
    FittedFeature("volatility_class", "g", "realized_volatility_30", QuantileCuts((1 / 3, 2 / 3)), "class"),
    FittedFeature("body_rank", "g", "weighted_body_30", PercentileRank(), "fraction"),
    FittedFeature("return_30_score", "g", "return_30", StandardScore(), "sd"),
)
NAMES = tuple(f.name for f in FITTED)


class ExtendedConformance(FamilyConformance):
    """The suite on stored columns, with fitted ones behind them."""

    def fitted(self, task: Task = "regression", seed: int = 0) -> tuple[FittedModel, np.ndarray, np.ndarray]:
        X, y = market(task=task)
        model = fit_extended(self.family, self.params, COLUMNS, X, y, FITTED, task=task, seed=seed)
        assert isinstance(model, ExtendedModel)
        X_new, y_new = market(800, seed=1, task=task)
        return model, self.select(X_new), y_new

    def test_it_is_the_family_on_columns_made_by_hand(self) -> None:
        model, X_new, _ = self.fitted()
        X, y = market()
        X = self.select(X)
        volatility, body, past = (X[:, i].astype(float) for i in (2, 1, 0))

        def by_hand(rows: np.ndarray) -> np.ndarray:
            cuts = np.quantile(volatility, [1 / 3, 2 / 3])
            levels = np.quantile(body, np.linspace(0, 1, 101))
            made = (
                (rows[:, [2]] >= cuts).sum(1),
                np.interp(rows[:, 1], levels, np.linspace(0, 1, 101)),
                (rows[:, 0] - past.mean()) / past.std(),
            )
            return np.column_stack([rows, *made]).astype(np.float32)

        plain = self.family.fit(self.params, (*COLUMNS[6:], *NAMES), by_hand(X), y)
        assert model.learned == plain.columns
        np.testing.assert_allclose(model.predict(X_new), plain.predict(by_hand(X_new)), rtol=1e-5, atol=1e-9)
        assert model.importance() == pytest.approx(plain.importance(), rel=1e-4)

    def test_the_columns_are_used_explained_and_stored(self, tmp_path: Path) -> None:
        model, X, _ = self.fitted()
        assert isinstance(model, ExtendedModel)
        parts = model.contributions(X)
        assert np.abs(parts[:, model.learned.index("body_rank")]).max() > 0
        model.save(tmp_path)
        document = json.loads((tmp_path / "model.json").read_text())
        assert document["columns"] == list(COLUMNS[6:])
        assert document["learned"] == [*COLUMNS[6:], *NAMES]
        again = load_model(tmp_path)
        assert isinstance(again, ExtendedModel)
        assert (again.fitted, again.learned, again.artefact) == (model.fitted, model.learned, model.artefact)
        np.testing.assert_array_equal(again.contributions(X), parts)
        document["fitted"][0]["parameters"] = [0.5]
        (tmp_path / "model.json").write_text(json.dumps(document))
        with pytest.raises(ModelError, match=r"'volatility_class': got the parameters \(0.5,\); required: 2"):
            load_model(tmp_path)


class TestXGBoostExtended(ExtendedConformance):
    family_name = "xgboost"
    params: ClassVar[dict[str, object]] = {"n_estimators": 80, "max_depth": 3}


class TestLightGBMExtended(ExtendedConformance):
    family_name = "lightgbm"
    params: ClassVar[dict[str, object]] = {"n_estimators": 80, "num_leaves": 8, "learning_rate": 0.1}


@pytest.mark.parametrize("name", [n for n in FAMILY_NAMES if n not in ("xgboost", "lightgbm")])
def test_other_families_take_none(name: str) -> None:
    X, y = market()
    model = fit_extended(get_family(name), {}, COLUMNS, X, y, FITTED)
    assert not isinstance(model, ExtendedModel)
    assert model.learned == model.columns == get_family(name).columns(COLUMNS)


def test_a_column_needed_by_a_fitted_feature_alone_is_an_input_but_not_learned() -> None:
    X, y = market()
    lag = FittedFeature("lag_rank", "g", "return_1_lag_0", PercentileRank(), "fraction")
    model = fit_extended(get_family("xgboost"), {"n_estimators": 30}, COLUMNS, X, y, (lag,))
    assert model.columns == (*COLUMNS[6:], "return_1_lag_0")
    assert model.learned == (*COLUMNS[6:], "lag_rank")
    assert model.importance()["lag_rank"] > 0.1
    X_new, y_new = market(800, seed=1)
    p = model.predict(np.column_stack([X_new[:, 6:], X_new[:, 0]]))
    assert 1 - np.mean((y_new - p) ** 2) / np.mean(y_new**2) > 0.35
