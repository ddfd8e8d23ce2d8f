"""Forecast metrics. Labels and forecasts are fractions (0.001 = 0.1 %); percent names end in ``_pct``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.hac import checked_rows, hac_margin

if TYPE_CHECKING:
    from marketray.dataset.load import Block

__all__ = [
    "BASELINES",
    "HitRate",
    "baselines",
    "forecast_pair",
    "hit_rate",
    "information_coefficient",
    "mae",
    "mae_pct",
    "r2_oos",
    "rmse",
    "rmse_pct",
    "squared_errors",
]

FloatArray = npt.NDArray[np.float64]

BASELINES = ("zero", "training_mean", "last_return")
"""Names of the naive forecasts that stand beside every model."""


@dataclass(frozen=True)
class HitRate:
    """Share of rows whose forecast has the label's sign.

    Attributes
    ----------
    rate:
        Hits / n; None where n = 0.
    low, high:
        Confidence interval of the rate, cut to [0, 1]; None where there are too few rows for one (see
        `marketray.evaluation.hac.hac_margin`), all hit or none does, or it was not asked for.
    n:
        Rows that count: label and forecast both differ from zero.
    """

    rate: float | None
    low: float | None
    high: float | None
    n: int


def squared_errors(y: npt.ArrayLike, prediction: npt.ArrayLike) -> FloatArray:
    """Squared errors, squared fractions, shape (n,); the loss of all tests and rankings."""
    labels, forecasts = forecast_pair(y, prediction)
    return np.square(labels - forecasts)


def rmse(y: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Root mean squared error, a fraction."""
    return float(np.sqrt(squared_errors(y, prediction).mean()))


def mae(y: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Mean absolute error, a fraction."""
    labels, forecasts = forecast_pair(y, prediction)
    return float(np.abs(labels - forecasts).mean())


def rmse_pct(y: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Root mean squared error in percent."""
    return 100 * rmse(y, prediction)


def mae_pct(y: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Mean absolute error in percent."""
    return 100 * mae(y, prediction)


def r2_oos(y: npt.ArrayLike, prediction: npt.ArrayLike, baseline_prediction: npt.ArrayLike) -> float:
    """Out-of-sample R² over a baseline: 1 − Σ(y − prediction)² / Σ(y − baseline)².

    Parameters
    ----------
    y, prediction, baseline_prediction:
        Labels and the two forecasts of the same rows, fractions, shape (n,).

    Raises
    ------
    DataError
        The arrays do not fit together, or the baseline is exact.

    References
    ----------
    Campbell and Thompson (2008), Predicting excess stock returns out of sample, RFS 21, equation 1.
    """
    baseline = float(squared_errors(y, baseline_prediction).sum())
    if baseline == 0:
        msg = "r2_oos: the baseline has no error on these rows; required: some error"
        raise DataError(msg, hint="check the labels and the baseline")
    return 1 - float(squared_errors(y, prediction).sum()) / baseline


def information_coefficient(y: npt.ArrayLike, prediction: npt.ArrayLike) -> float | None:
    """Pearson correlation of forecast and label; None where one of them is constant."""
    labels, forecasts = forecast_pair(y, prediction)
    if np.ptp(labels) == 0 or np.ptp(forecasts) == 0:
        return None
    return float(np.corrcoef(labels, forecasts)[0, 1])


def hit_rate(
    y: npt.ArrayLike,
    prediction: npt.ArrayLike,
    decision_us: npt.ArrayLike | None = None,
    horizon_minutes: int = 1,
    *,
    level: float = 0.95,
) -> HitRate:
    """Direction hit rate over the rows whose label and forecast both differ from zero.

    Parameters
    ----------
    y, prediction:
        Labels and forecasts, fractions, shape (n,).
    decision_us, horizon_minutes:
        Decision times (microseconds since the epoch, UTC), shape (n,), and label horizon, for the interval:
        rate ± `marketray.evaluation.hac.hac_margin` of the hits. None: no interval.
    level:
        Probability that the interval covers, 0.8, 0.9, 0.95 or 0.98.

    Raises
    ------
    DataError
        The arrays do not fit together.
    """
    labels, forecasts = forecast_pair(y, prediction)
    counted = (labels != 0) & (forecasts != 0)
    n = int(counted.sum())
    if n == 0:
        return HitRate(None, None, None, 0)
    hits = (np.sign(labels[counted]) == np.sign(forecasts[counted])).astype(np.float64)
    rate = float(hits.mean())
    if decision_us is None:
        return HitRate(rate, None, None, n)
    checked_rows(labels, decision_us, horizon_minutes)
    half = hac_margin(hits, np.asarray(decision_us)[counted], horizon_minutes, level=level)
    if half is None:
        return HitRate(rate, None, None, n)
    return HitRate(rate, max(0.0, rate - half), min(1.0, rate + half), n)


def baselines(
    train_y: npt.ArrayLike, block: Block, *, horizon_minutes: int = 30, bar_interval_minutes: int = 1
) -> dict[str, FloatArray]:
    """Naive forecasts of a block's labels.

    Parameters
    ----------
    train_y:
        Training labels, fractions; the only thing that is learned from.
    block:
        Rows to forecast. The last return is the trailing return over as many bars as the horizon holds: the
        feature ``return_<bars>``, or, where that is absent or has nulls, the one-bar returns
        ``return_1_lag_0 …`` compounded.
    horizon_minutes, bar_interval_minutes:
        Label horizon and bar interval.

    Returns
    -------
    dict
        ``zero``, ``training_mean`` and ``last_return``, each of shape (n,), fractions.

    Raises
    ------
    DataError
        The block has neither the trailing return nor the lags that make it up.
    """
    n = len(block.y)
    bars = max(1, horizon_minutes // bar_interval_minutes)
    return {
        "zero": np.zeros(n),
        "training_mean": np.full(n, float(np.mean(np.asarray(train_y, dtype=np.float64)))),
        "last_return": _last_return(block, bars),
    }


def _last_return(block: Block, bars: int) -> FloatArray:
    name = f"return_{bars}"
    if name in block.columns:
        values = block.select((name,)).values[:, 0].astype(np.float64)
        if np.isfinite(values).all():
            return values
    lags = tuple(f"return_1_lag_{k}" for k in range(bars))
    if set(lags) <= set(block.columns):
        parts = block.select(lags).values.astype(np.float64)
        return np.asarray(np.expm1(np.log1p(parts).sum(axis=1)), dtype=np.float64)
    msg = f"baseline last_return: the block lacks {name} without nulls and the lags {lags[0]} … {lags[-1]}"
    raise DataError(msg, hint="pass the block with all its columns, and keep the group returns or lags")


def forecast_pair(y: npt.ArrayLike, prediction: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Labels and forecasts as float64, shape (n,) each.

    Raises
    ------
    DataError
        They differ in shape, are empty, or hold a value that is not finite.
    """
    labels, forecasts = np.asarray(y, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != forecasts.shape or len(labels) == 0:
        msg = f"y has shape {labels.shape}, prediction {forecasts.shape}; required: one shape (n,)"
        raise DataError(msg, hint="pass one forecast a row")
    if not (np.isfinite(labels).all() and np.isfinite(forecasts).all()):
        msg = "y or prediction holds values that are not finite; required: none"
        raise DataError(msg, hint="drop rows without a label or a forecast first")
    return labels, forecasts
