"""Comparing forecasts on identical rows and ranking them. Pure functions over arrays.

For ``task: direction`` the forecast is P(up). Labels and forecasts are then centred on 0.5, so the "zero"
forecast is the one that knows nothing and every formula below holds unchanged; errors are in units of
probability instead of returns.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError, ModelError
from marketray.evaluation.association import (
    balanced_accuracy,
    calibration,
    correlation,
    rank_correlation,
    skill,
)
from marketray.evaluation.metrics import (
    baselines,
    hit_rate,
    mae_pct,
    r2_oos,
    rmse_pct,
    squared_errors,
)
from marketray.evaluation.significance import (
    diebold_mariano,
    hac_standard_error,
    minimum_detectable_r2,
)

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.models.base import Task

__all__ = ["Rows", "compare", "figures", "rank", "rows_of"]

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Labels of one split with the naive forecasts of the same rows.

    Attributes
    ----------
    y:
        Labels, shape (n,): returns as fractions, or ±0.5 for the direction task.
    naive:
        Forecasts by baseline name, each (n,), in the labels' units; holds ``zero``.
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,).
    horizon_minutes:
        Label horizon; labels cover (decision, decision + horizon].
    centre:
        What was taken from labels and is taken from forecasts: 0, or 0.5 for the direction task.
    """

    y: FloatArray
    naive: dict[str, FloatArray]
    decision_us: IntArray
    horizon_minutes: int
    centre: float = 0.0


def rows_of(
    block: Block, train_y: FloatArray, *, horizon_minutes: int, bar_interval_minutes: int, task: Task
) -> Rows:
    """Labels and naive forecasts of a block; `train_y` are the training returns, fractions."""
    naive = baselines(
        train_y, block, horizon_minutes=horizon_minutes, bar_interval_minutes=bar_interval_minutes
    )
    if task == "regression":
        return Rows(block.y, naive, block.decision_us, horizon_minutes)
    naive["training_mean"] = np.full(len(block), float(np.mean(train_y > 0)) - 0.5)
    naive["last_return"] = 0.5 * np.sign(naive["last_return"])
    return Rows(block.up - 0.5, naive, block.decision_us, horizon_minutes, centre=0.5)


def figures(rows: Rows, prediction: FloatArray, *, alpha: float) -> dict[str, Any]:
    """Every figure of one forecast on one split.

    Parameters
    ----------
    rows:
        Labels and naive forecasts.
    prediction:
        Centred forecasts, shape (n,).
    alpha:
        Level at which the minimum detectable R² is stated.

    Returns
    -------
    dict
        n, rmse_pct, mae_pct, r2_oos by baseline, r2_interval {low, high} of that over zero, hit_rate {rate,
        low, high, n}, balanced_accuracy {rate, low, high}, information_coefficient {pearson, spearman, low,
        high}, calibration {slope, intercept, slope_low, slope_high}, p_value (one-sided HAC Diebold–Mariano,
        squared errors, better than zero), n_effective, minimum_detectable_r2 (80 % power). The last three and
        all intervals are None where there are too few rows for a test, other values where they are not
        defined.
    """
    times, horizon = rows.decision_us, rows.horizon_minutes
    found = _errors(rows, prediction)
    try:
        test = diebold_mariano(squared_errors(rows.y, prediction), rows.y**2, times, horizon)
        detectable = minimum_detectable_r2(rows.y, prediction, times, horizon, alpha=alpha)
    except DataError as e:  # too few rows for a test: the errors still stand
        logger.warning("no significance on %d rows: %s", len(rows.y), e.message)
        return found
    return {
        **found,
        **_associations(rows, prediction),
        "p_value": test.p_value,
        "n_effective": test.n_effective,
        "minimum_detectable_r2": detectable,
    }


def _associations(rows: Rows, prediction: FloatArray) -> dict[str, Any]:
    """The figures of `figures` that have an interval of their own."""
    pairs = (rows.y, prediction, rows.decision_us, rows.horizon_minutes)
    balanced, pearson, r2 = balanced_accuracy(*pairs), correlation(*pairs), skill(*pairs)
    return {
        "r2_interval": {"low": r2.low, "high": r2.high},
        "hit_rate": asdict(hit_rate(*pairs)),
        "balanced_accuracy": {"rate": balanced.value, "low": balanced.low, "high": balanced.high},
        "information_coefficient": {
            "pearson": pearson.value,
            "spearman": rank_correlation(rows.y, prediction),
            "low": pearson.low,
            "high": pearson.high,
        },
        "calibration": asdict(calibration(*pairs)),
    }


def compare(rows: Rows, predictions: Mapping[str, FloatArray], *, alpha: float) -> dict[str, dict[str, Any]]:
    """`figures` of the models, then the errors of the naive forecasts, which are tested against nothing."""
    table = {name: figures(rows, values, alpha=alpha) for name, values in predictions.items()}
    return {**table, **{name: _errors(rows, values) for name, values in rows.naive.items()}}


def _errors(rows: Rows, prediction: FloatArray) -> dict[str, Any]:
    """The keys of `figures`, those that need a test None."""
    return {
        "n": len(rows.y),
        "rmse_pct": rmse_pct(rows.y, prediction),
        "mae_pct": mae_pct(rows.y, prediction),
        "r2_oos": {name: r2_oos(rows.y, prediction, naive) for name, naive in rows.naive.items()},
        "r2_interval": dict.fromkeys(("low", "high")),
        "hit_rate": asdict(hit_rate(rows.y, prediction)),
        "balanced_accuracy": dict.fromkeys(("rate", "low", "high")),
        "information_coefficient": dict.fromkeys(("pearson", "spearman", "low", "high")),
        "calibration": dict.fromkeys(("slope", "intercept", "slope_low", "slope_high")),
        "p_value": None,
        "n_effective": None,
        "minimum_detectable_r2": None,
    }


def rank(
    y: FloatArray,
    predictions: Mapping[str, FloatArray],
    cv_rmse: Mapping[str, float],
    decision_us: IntArray,
    horizon_minutes: int,
) -> list[str]:
    """Names from best to worst by test RMSE, ties broken by cross-validation RMSE.

    The leader has the smallest mean squared error among those not yet placed; tied with it are all whose
    mean loss exceeds the leader's by at most one HAC standard error of that difference. The tied one with the
    smallest `cv_rmse` takes the place (equal ones: smaller test error, then the name), and the rest go on.

    Parameters
    ----------
    y:
        Test labels, shape (n,).
    predictions:
        Forecasts by name, each (n,).
    cv_rmse:
        Cross-validation RMSE by name.
    decision_us, horizon_minutes:
        Decision times (microseconds, UTC) and label horizon, for the standard error.

    Raises
    ------
    ModelError
        There is no candidate, one lacks its CV figure, or forecasts are not finite.
    """
    if not predictions:
        msg = "rank: got no candidates; required: at least one"
        raise ModelError(msg, hint="run the tune stage first")
    for name, values in predictions.items():
        if not np.isfinite(values).all() or not np.isfinite(cv_rmse.get(name, np.nan)):
            msg = f"rank: {name} has forecasts or a cv_rmse that are not finite; required: all finite"
            raise ModelError(msg, hint="tune this family again, or leave it out of tuning.families")
    losses = {name: squared_errors(y, values) for name, values in predictions.items()}
    error = {name: float(loss.mean()) for name, loss in losses.items()}
    remaining, order = sorted(losses), []
    while remaining:
        leader = min(remaining, key=lambda name: error[name])
        tied = [
            name
            for name in remaining
            if error[name] - error[leader]
            <= _standard_error(losses[name] - losses[leader], decision_us, horizon_minutes)
        ]
        winner = min(tied, key=lambda name: (cv_rmse[name], error[name], name))
        order.append(winner)
        remaining.remove(winner)
    return order


def _standard_error(difference: FloatArray, decision_us: IntArray, horizon_minutes: int) -> float:
    return hac_standard_error(difference, decision_us, horizon_minutes) if difference.any() else 0.0
