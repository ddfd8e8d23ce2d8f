"""Columns ranked by contribution: shares against the libraries' own, groups by counting."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from marketray.errors import ModelError
from marketray.features.fits import PercentileRank, StandardScore
from marketray.features.fitted import FittedFeature
from marketray.models import get_family
from marketray.models.autoregression import AutoregressionModel
from marketray.models.contribution import (
    ALL,
    FEWEST,
    GroupChoice,
    Ranking,
    group_names,
    rank_columns,
    split_group,
)
from marketray.models.extended import ExtendedModel, fit_extended
from marketray.models.lightgbm import LightGBMModel
from marketray.models.xgboost import XGBoostModel

EDGES = {
    "0–5%": Fraction(5, 100),
    "5–10%": Fraction(10, 100),
    "10–20%": Fraction(20, 100),
    "20–30%": Fraction(30, 100),
    "30–40%": Fraction(40, 100),
    "40–50%": Fraction(50, 100),
    "50–70%": Fraction(70, 100),
    "70–90%": Fraction(90, 100),
}
COLUMNS = tuple(f"x{k}" for k in range(8))
PARAMS = {"xgboost": {"max_depth": 3, "subsample": 0.8}, "lightgbm": {"num_leaves": 7}}


def rows(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Eight columns; x5 counts most, then x2, then x0; the rest is noise."""
    r = np.random.default_rng(seed)
    X = r.standard_normal((n, len(COLUMNS))).astype(np.float32)
    signal = 1.5 * X[:, 5] + X[:, 2] + 0.6 * X[:, 0]
    return X, 1e-3 * (signal + 0.3 * r.standard_normal(n))


def ranked(weights: list[int]) -> tuple[Ranking, list[Fraction]]:
    """A ranking, and its exact shares from the largest down."""
    total = sum(weights)
    exact = sorted((Fraction(w, total) for w in weights), reverse=True)
    return Ranking({f"c{k:02d}": w / total for k, w in enumerate(weights)}), exact


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any))
def test_groups_are_counted_by_cumulative_share(weights: list[int]) -> None:
    ranking, exact = ranked(weights)
    for name, edge in EDGES.items():
        assert ranking.sizes[name] == sum(sum(exact[: k + 1]) <= edge for k in range(len(exact))), name
    above = [sum(share > Fraction(1, len(exact)) for share in exact)]
    above.append(max(sum(share >= Fraction(1, len(exact)) for share in exact), 1))
    assert above[0] <= ranking.sizes["knee"] <= above[1]
    assert ranking.sizes[ALL] == len(weights)
    for name, size in ranking.sizes.items():
        members = ranking.columns(name)
        assert len(members) == min(max(size, FEWEST), len(weights))
        worst = min(ranking.shares[c] for c in members)
        assert all(ranking.shares[c] <= worst for c in set(ranking.shares) - members)
    smaller: frozenset[str] = frozenset()
    for name in (*EDGES, ALL):  # each holds all the better ones
        assert smaller <= ranking.columns(name)
        smaller = ranking.columns(name)


def test_groups_by_hand() -> None:
    weights = [4, 4, 4, 4, 4, *[2] * 40]
    ranking, _ = ranked(weights)
    assert ranking.sizes == {
        "0–5%": 1,
        "5–10%": 2,
        "10–20%": 5,
        "20–30%": 10,
        "30–40%": 15,
        "40–50%": 20,
        "50–70%": 30,
        "70–90%": 40,
        "knee": 5,
        "all": 45,
    }
    assert ranking.order[:6] == ("c00", "c01", "c02", "c03", "c04", "c05")  # equals by name
    assert ranking.columns("0–5%") == {"c00", "c01", "c02"}
    names = ("10–20%", "20–30%", "30–40%", "40–50%", "50–70%", "70–90%", "all")
    assert group_names([ranking]) == names  # knee is 10–20%
    other, _ = ranked(weights[::-1])
    assert group_names([ranking, other]) == names
    other, _ = ranked([6, 6, 6, *[1] * 42])
    assert group_names([ranking, other]) == (*names[1:-1], "knee", "all")
    assert other.columns("knee") == {"c00", "c01", "c02"}


def test_where_nothing_was_learned_every_group_is_all() -> None:
    ranking = Ranking(dict.fromkeys(COLUMNS, 0.0))
    assert group_names([ranking]) == ("all",)
    assert {ranking.columns(name) for name in ranking.sizes} == {frozenset(COLUMNS)}
    with pytest.raises(
        ModelError, match=r"feature_group='best'; required: one of \['0–5%', .*'knee', 'all'\]"
    ):
        ranking.columns("best")


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("task", ["regression", "direction"])
def test_shares_are_mean_absolute_shapley_values_of_the_trees(name: str, task: Any) -> None:
    X, y = rows()
    y = y if task == "regression" else (y > 0).astype(float)
    family = get_family(name)
    ranking = rank_columns(family, PARAMS[name], 30, COLUMNS, X, y, task=task, seed=3)
    model = family.fit({**PARAMS[name], "n_estimators": 30}, COLUMNS, X, y, task=task, seed=3)
    if isinstance(model, XGBoostModel):
        parts = np.asarray(model.booster.predict(xgboost.DMatrix(X), pred_contribs=True), np.float64)
    else:
        assert isinstance(model, LightGBMModel)
        assert isinstance(model.booster, lightgbm.Booster)
        parts = np.asarray(model.booster.predict(X, pred_contrib=True))
    weight = np.abs(parts[:, :-1]).mean(axis=0)
    np.testing.assert_allclose([ranking.shares[c] for c in COLUMNS], weight / weight.sum(), rtol=1e-5)
    assert ranking.order[:2] == ("x5", "x2")
    assert sum(ranking.shares.values()) == pytest.approx(1)


def test_shares_of_a_linear_model_are_those_of_its_terms() -> None:
    r = np.random.default_rng(0)
    columns = ("return_1_lag_0", "return_1_lag_1", "order_flow_5")
    X = (r.standard_normal((300, 3)) * [1, 2, 3]).astype(np.float32)
    y = X @ [3e-3, 1e-3, 0.5e-3] + 1e-4 * r.standard_normal(300)
    params = {"lags": 2, "exogenous": "order_flow"}
    ranking = rank_columns(get_family("ar"), params, 1, columns, X, y)
    slope = np.linalg.lstsq(np.column_stack([np.ones(300), X]), y, rcond=None)[0][1:]
    weight = np.abs(slope * (X - X.mean(axis=0))).mean(axis=0)
    np.testing.assert_allclose([ranking.shares[c] for c in columns], weight / weight.sum(), rtol=1e-5)


def test_the_sample_is_seeded_and_shrinks_with_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = AutoregressionModel.contributions

    def note(self: AutoregressionModel, X: np.ndarray) -> np.ndarray:
        sizes.append(len(X))
        return plain(self, X)

    monkeypatch.setattr(AutoregressionModel, "contributions", note)
    fit = get_family("ar").fit
    X = np.random.default_rng(0).standard_normal((6_000, 2)).astype(np.float32)
    columns, params = ("return_1_lag_0", "return_1_lag_1"), {"lags": 2}
    for rounds in (1, 30, 100, 1_000):
        family = get_family("ar")

        def fitted(*args: Any, rounds: int = rounds, **more: Any) -> Any:
            model = fit(*args, **more)
            model.rounds = rounds
            return model

        monkeypatch.setattr(family, "fit", fitted)
        shares = [rank_columns(family, params, 1, columns, X, X[:, 0] * 1e-3, seed=s).shares for s in (1, 1)]
        assert shares[0] == shares[1]
    assert sizes[::2] == [2_000, 2_000, 600, 200]


def test_a_choice_travels_in_the_parameters() -> None:
    choice = GroupChoice("knee", {"max_depth": 3}, 30)
    params = {"max_depth": 4, "feature_group": choice.to_json()}
    assert split_group(params) == ({"max_depth": 4}, "knee", choice)
    assert split_group({"max_depth": 4, "feature_group": "all"}) == ({"max_depth": 4}, "all", None)
    assert split_group({"max_depth": 4}) == ({"max_depth": 4}, "all", None)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_fit_ranks_its_own_rows_and_takes_the_group_alone(name: str) -> None:
    family, X, y = get_family(name), *rows()
    params = {**PARAMS[name], "n_estimators": 20}
    choice = GroupChoice("knee", {**PARAMS[name], "n_estimators": 999}, 30)
    model = fit_extended(family, {**params, "feature_group": choice.to_json()}, COLUMNS, X, y, (), seed=3)
    names = ("x0", "x2", "x5")
    assert model.columns == model.learned == names
    index = [COLUMNS.index(c) for c in names]
    plain = family.fit(params, names, X[:, index], y, seed=3)
    np.testing.assert_array_equal(model.predict(X[:, index]), plain.predict(X[:, index]))
    swapped = X[:, [0, 1, 2, 3, 4, 7, 6, 5]]
    other = fit_extended(
        family, {**params, "feature_group": choice.to_json()}, COLUMNS, swapped, y, (), seed=3
    )
    assert "x7" in other.columns
    assert "x5" not in other.columns


def test_fitted_columns_of_a_group_keep_what_they_are_made_from() -> None:
    """x5 itself is left out by the layout of the group, but its rank is in, and needs x5."""
    X, y = rows()
    X[:, 5] = np.sign(X[:, 5]) * np.abs(X[:, 5]) ** 5  # any monotone scale is the same to a tree
    fitted = (
        FittedFeature("x5_rank", "g", "return_1_lag_0", PercentileRank(), "fraction"),
        FittedFeature("x7_score", "g", "x7", StandardScore(), "sd"),
    )
    columns = tuple("return_1_lag_0" if c == "x5" else c for c in COLUMNS)  # trees take no lags
    choice = GroupChoice("knee", {"max_depth": 3}, 30)
    params = {"max_depth": 3, "n_estimators": 10, "feature_group": choice.to_json()}
    model = fit_extended(get_family("xgboost"), params, columns, X, y, fitted)
    assert isinstance(model, ExtendedModel)
    assert model.learned[-1] == "x5_rank"
    assert [column.name for column in model.fitted] == ["x5_rank"]
    assert model.columns == (*model.learned[:-1], "return_1_lag_0")
    kept = [columns.index(c) for c in model.columns]
    assert np.corrcoef(model.predict(X[:, kept]), y)[0, 1] > 0.6


def test_a_group_without_a_ranking_model_is_refused() -> None:
    X, y = rows()
    with pytest.raises(ModelError, match="feature_group='knee' and no ranking model; required: name, params"):
        fit_extended(get_family("xgboost"), {"feature_group": "knee"}, COLUMNS, X, y, ())
    whole = {"n_estimators": 5, "feature_group": "all"}
    assert fit_extended(get_family("xgboost"), whole, COLUMNS, X, y, ()).columns == COLUMNS
