"""Search spaces: ranges, conditional rounds, narrowing, enumeration."""

from __future__ import annotations

import pickle
from functools import partial

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.errors import TuningError
from marketray.models import get_family
from marketray.tuning.spaces import Choice, Range, first_space, narrowed, suggest

FAMILIES = ("xgboost", "lightgbm", "ar")


def draws(space: object, n: int = 60, seed: int = 0) -> list[dict[str, object]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found = []
    for _ in range(n):
        trial = study.ask()
        suggest(trial, space)  # type: ignore[arg-type]
        found.append(trial.params)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_draw_is_a_set_of_the_family_s_parameters(family: str) -> None:
    space = first_space(family, exogenous=("none", "order_flow"))
    for params in [*draws(space), dict(space.start)]:
        assert set(params) <= set(get_family(family).defaults)
        suggest(optuna.trial.FixedTrial(params), space)  # the start lies inside the space


@pytest.mark.parametrize("family", FAMILIES)
def test_the_space_function_can_be_pickled(family: str) -> None:
    space = first_space(family)
    again = pickle.loads(pickle.dumps(partial(suggest, space=space)))
    assert again.keywords["space"] == space


def test_xgboost_rounds_depend_on_the_learning_rate() -> None:
    space = first_space("xgboost")
    assert space.rounds_range(0.05) == (600, 9_000)
    assert space.rounds_range(0.07) == (300, 4_500)
    assert space.rounds_range(0.2) == (100, 1_800)
    assert first_space("xgboost", max_rounds=400).rounds_range(0.05) == (400, 400)
    assert first_space("xgboost", max_rounds=1_000).rounds_range(0.3) == (100, 1_000)
    for params in draws(space):
        low, high = space.rounds_range(params["learning_rate"])  # type: ignore[arg-type]
        assert low <= params["n_estimators"] <= high  # type: ignore[operator]


def test_direction_adds_class_weight() -> None:
    names = [p.name for p in first_space("lightgbm", task="direction").parameters]
    assert names[-1] == "class_weight"
    assert "class_weight" not in [p.name for p in first_space("lightgbm").parameters]


def test_narrowing_by_hand() -> None:
    space = first_space("xgboost")
    best = {**dict(space.start), "learning_rate": 0.05, "max_depth": 4, "gamma": 0.0, "subsample": 0.9}
    fine = {p.name: p for p in narrowed(space, best).parameters}
    assert (fine["learning_rate"].low, fine["learning_rate"].high) == (0.03, 0.07)
    assert (fine["max_depth"].low, fine["max_depth"].high) == (3, 6)  # [2.4, 5.6] outwards, clipped
    assert (fine["gamma"].low, fine["gamma"].high) == (0.0, 0.0)
    assert fine["subsample"].low == pytest.approx(0.54)
    assert fine["subsample"].high == 1.0
    assert narrowed(space, {**best, "n_estimators": 1_000}).rounds_range(0.05) == (600, 1_400)
    assert narrowed(space, {**best, "n_estimators": 9_000}).rounds_range(0.3) == (1_800, 1_800)


def test_narrowing_keeps_neighbours_of_ordered_options() -> None:
    space = first_space("ar", max_lags=60, exogenous=("none", "order_flow"))
    lags, exogenous, ridge = narrowed(space, {"lags": 10, "exogenous": "none", "ridge": 0.0}).parameters
    assert lags == Range("lags", 6, 14, integer=True)
    assert exogenous == Choice("exogenous", ("none", "order_flow"))
    assert ridge.options == (0.0, 1e-6)  # type: ignore[union-attr]
    ridge = narrowed(space, {"lags": 10, "exogenous": "none", "ridge": 1e-2}).parameters[2]
    assert ridge.options == (1e-3, 1e-2, 1e-1)  # type: ignore[union-attr]


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=st.integers(0, 10_000))
def test_the_fine_space_lies_in_the_first_and_holds_the_best(family: str, seed: int) -> None:
    space = first_space(family)
    best = draws(space, 1, seed)[0]
    fine = narrowed(space, best)
    assert dict(fine.start) == best
    suggest(optuna.trial.FixedTrial(best), fine)
    for coarse, narrow in zip(space.parameters, fine.parameters, strict=True):
        if isinstance(coarse, Range):
            assert coarse.low <= narrow.low <= best[coarse.name] <= narrow.high <= coarse.high  # type: ignore
        else:
            assert best[coarse.name] in narrow.options  # type: ignore[union-attr]
            assert set(narrow.options) <= set(coarse.options)  # type: ignore[union-attr]


def test_a_finite_space_is_enumerated() -> None:
    space = first_space("ar", max_lags=3, exogenous=("none", "order_flow"))
    points = space.points()
    assert space.size == len(points) == 3 * 2 * 10
    assert len({tuple(p.items()) for p in points}) == 60
    assert {p["lags"] for p in points} == {1, 2, 3}
    assert first_space("xgboost").size is None
    with pytest.raises(TuningError, match="is continuous; required: a finite space"):
        first_space("lightgbm").points()


def test_unknown_family() -> None:
    with pytest.raises(TuningError, match="family='zero' has no search space"):
        first_space("zero")
