"""What is tuned: search spaces of the families, their narrowing and their enumeration.

`suggest` is the define-by-run function that Optuna (through Ray Tune) calls. It lives at module level and
takes the space as data, because the searcher's state, this function in it, has to be picklable.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

from marketray.errors import TuningError
from marketray.models.contribution import ALL, FEATURE_GROUP

__all__ = ["Choice", "Range", "Space", "first_space", "grouped", "narrowed", "suggest"]

Value = float | int | str | None


class SuggestsValues(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number in [low, high]."""

    def suggest_categorical(self, name: str, choices: tuple[Value, ...]) -> Value:
        """One of `choices`."""


@dataclass(frozen=True)
class Range:
    """Numbers in [low, high], uniform or log-uniform."""

    name: str
    low: float
    high: float
    log: bool = False
    integer: bool = False


@dataclass(frozen=True)
class Choice:
    """One of `options`; `ordered` ones have neighbours."""

    name: str
    options: tuple[Value, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Space:
    """A family's parameters.

    Attributes
    ----------
    parameters:
        All parameters but ``n_estimators``.
    rounds_by_rate:
        (learning rate below which it holds, fewest, most) boosting rounds, by rising learning rate.
    max_rounds:
        Cap on ``n_estimators``.
    rounds:
        A narrower range of ``n_estimators``, clipped to that of the learning rate.
    start:
        The first point to try.
    """

    parameters: tuple[Range | Choice, ...]
    rounds_by_rate: tuple[tuple[float, int, int], ...] = ()
    max_rounds: int = 9_000
    rounds: tuple[int, int] | None = None
    start: tuple[tuple[str, Value], ...] = ()

    @property
    def size(self) -> int | None:
        """How many points there are; None where a parameter is continuous."""
        if self.rounds_by_rate:
            return None
        total = 1
        for p in self.parameters:
            count = _count(p)
            if count is None:
                return None
            total *= count
        return total

    def points(self) -> list[dict[str, Value]]:
        """Every point of a finite space.

        Raises
        ------
        TuningError
            The space is not finite.
        """
        if self.size is None:
            msg = f"space of {[p.name for p in self.parameters]} is continuous; required: a finite space"
            raise TuningError(msg)
        axes = [
            p.options if isinstance(p, Choice) else range(int(p.low), int(p.high) + 1)
            for p in self.parameters
        ]
        names = [p.name for p in self.parameters]
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]

    def rounds_range(self, learning_rate: float) -> tuple[int, int]:
        """[fewest, most] boosting rounds at this learning rate."""
        low, high = next((a, b) for rate, a, b in self.rounds_by_rate if learning_rate < rate)
        if self.rounds is not None:
            low, high = (min(max(value, low), high) for value in self.rounds)
        return min(low, self.max_rounds), min(high, self.max_rounds)


def suggest(trial: SuggestsValues, space: Space) -> None:
    """Ask `trial` for every parameter of `space`; ``n_estimators`` depends on the learning rate."""
    rate = math.nan
    for p in space.parameters:
        if isinstance(p, Choice):
            trial.suggest_categorical(p.name, p.options)
        elif p.integer:
            trial.suggest_int(p.name, int(p.low), int(p.high), log=p.log)
        else:
            value = trial.suggest_float(p.name, p.low, p.high, log=p.log)
            rate = value if p.name == "learning_rate" else rate
    if space.rounds_by_rate:
        trial.suggest_int("n_estimators", *space.rounds_range(rate))


def first_space(
    family: str,
    *,
    task: str = "regression",
    max_rounds: int = 9_000,
    max_lags: int = 60,
    exogenous: tuple[str, ...] = ("none",),
) -> Space:
    """The coarse space of stage 1.

    Parameters
    ----------
    max_rounds:
        Cap on ``n_estimators`` of the boosted families.
    max_lags, exogenous:
        Lags there are, and exogenous sets that have columns; for the autoregression.

    Raises
    ------
    TuningError
        The family is not tuned.
    """
    if family == "xgboost":
        return _xgboost(max_rounds)
    if family == "lightgbm":
        return _lightgbm(max_rounds, task)
    if family == "ar":
        return _autoregression(max_lags, exogenous)
    msg = f"family={family!r} has no search space; required: xgboost, lightgbm or ar"
    raise TuningError(msg)


def _xgboost(max_rounds: int) -> Space:
    space = Space(
        (
            Range("learning_rate", 0.01, 0.3, log=True),
            Range("max_depth", 3, 10, integer=True),
            Range("min_child_weight", 1.0, 10.0),
            Range("gamma", 0.0, 5.0),
            Range("subsample", 0.5, 1.0),
            Range("colsample_bytree", 0.5, 1.0),
            Range("reg_alpha", 1e-8, 10.0, log=True),
            Range("reg_lambda", 1e-6, 20.0, log=True),
        ),
        ((0.07, 600, 9_000), (0.2, 300, 4_500), (math.inf, 100, 1_800)),
        max_rounds,
    )
    start: dict[str, Value] = {
        "learning_rate": 0.1,
        "max_depth": 4,
        "min_child_weight": 5.0,
        "gamma": 0.0,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "reg_alpha": 1e-3,
        "reg_lambda": 1.0,
        "n_estimators": min(2_000, max_rounds),
    }
    return replace(space, start=tuple(start.items()))


def _lightgbm(max_rounds: int, task: str) -> Space:
    parameters: tuple[Range | Choice, ...] = (
        Range("learning_rate", 0.005, 0.3, log=True),
        Range("num_leaves", 16, 512, log=True, integer=True),
        Range("max_depth", -1, 16, integer=True),
        Range("min_child_samples", 20, 200, integer=True),
        Range("lambda_l1", 1e-8, 10.0, log=True),
        Range("lambda_l2", 1e-8, 20.0, log=True),
        Range("colsample_bytree", 0.5, 1.0),
        Range("subsample", 0.5, 1.0),
        Range("subsample_freq", 1, 10, integer=True),
        Range("min_split_gain", 0.0, 5.0),
        Choice("max_bin", (64, 128, 255, 512), ordered=True),  # few values, so that binned rows are shared
    )
    start: dict[str, Value] = {
        "learning_rate": 0.1,
        "num_leaves": 16,
        "max_depth": -1,
        "min_child_samples": 100,
        "lambda_l1": 1e-3,
        "lambda_l2": 1.0,
        "colsample_bytree": 0.8,
        "subsample": 0.8,
        "subsample_freq": 1,
        "min_split_gain": 0.0,
        "max_bin": 255,
        "n_estimators": min(2_000, max_rounds),
    }
    if task == "direction":
        parameters += (Choice("class_weight", (None, "balanced")),)
        start["class_weight"] = None
    return Space(parameters, ((math.inf, 400, 5_000),), max_rounds, start=tuple(start.items()))


def _autoregression(max_lags: int, exogenous: tuple[str, ...]) -> Space:
    ridge = (0.0, *(10.0**k for k in range(-6, 3)))
    return Space(
        (
            Range("lags", 1, max_lags, integer=True),
            Choice("exogenous", exogenous),
            Choice("ridge", ridge, ordered=True),
        ),
        start=(("lags", min(30, max_lags)), ("exogenous", exogenous[-1]), ("ridge", 0.0)),
    )


def narrowed(space: Space, best: dict[str, Any]) -> Space:
    """The fine space of stage 2 around stage 1's best point, which becomes its first point.

    A number x becomes [0.6 x, 1.4 x], so 0.05 becomes [0.03, 0.07], clipped to the first range; an integer
    rounds outwards; x <= 0 stays. Ordered options keep the best and its neighbours, others stay whole.
    """
    parameters = tuple(_narrow(p, best[p.name]) for p in space.parameters)
    rounds = None
    if space.rounds_by_rate:
        rounds = (math.floor(0.6 * best["n_estimators"]), math.ceil(1.4 * best["n_estimators"]))
    return replace(space, parameters=parameters, rounds=rounds, start=tuple(best.items()))


def grouped(space: Space, names: tuple[str, ...]) -> Space:
    """`space` with a choice of feature group, beginning with ``all``; as it is where that is the only one."""
    if names == (ALL,):
        return space
    choice = Choice(FEATURE_GROUP, names)
    return replace(space, parameters=(*space.parameters, choice), start=(*space.start, (FEATURE_GROUP, ALL)))


def _narrow(p: Range | Choice, x: Any) -> Range | Choice:
    if isinstance(p, Choice):
        if not p.ordered:
            return p
        i = p.options.index(x)
        return replace(p, options=p.options[max(i - 1, 0) : i + 2])
    if x <= 0:
        return replace(p, low=x, high=x, log=False)
    low, high = round(0.6 * x, 15), round(1.4 * x, 15)
    if p.integer:
        low, high = math.floor(low), math.ceil(high)
    return replace(p, low=max(low, p.low), high=min(high, p.high))


def _count(p: Range | Choice) -> int | None:
    if isinstance(p, Choice):
        return len(p.options)
    return int(p.high) - int(p.low) + 1 if p.integer else None
