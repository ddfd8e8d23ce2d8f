"""How well forecasts and labels go together, with intervals that hold for overlapping labels.

Each figure is, to first order, a mean over rows of its influence function: what one row adds to it. The
interval is the estimate ± the HAC margin of that mean (delta method; Hampel, 1974, The influence curve and
its role in robust estimation, JASA 69).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marketray.evaluation.hac import checked_rows, hac_margin
from marketray.evaluation.metrics import forecast_pair

__all__ = [
    "Calibration",
    "Estimate",
    "balanced_accuracy",
    "calibration",
    "correlation",
    "rank_correlation",
    "skill",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval; all None where the figure is not defined.

    The ends alone are None where the rows hold no interval, see `marketray.evaluation.hac.hac_margin`.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def around(cls, value: float, margin: float | None) -> Estimate:
        """`value` ± `margin`."""
        return cls(value) if margin is None else cls(value, value - margin, value + margin)


@dataclass(frozen=True)
class Calibration:
    """The least-squares line label = intercept + slope · forecast; all None where the forecast is constant.

    A calibrated forecast has slope 1 and intercept 0, an overconfident one a slope below 1.

    Attributes
    ----------
    slope, slope_low, slope_high:
        Slope with its confidence interval, whose ends are None as those of `Estimate`.
    intercept:
        In units of the label.
    """

    slope: float | None
    intercept: float | None
    slope_low: float | None
    slope_high: float | None


def balanced_accuracy(
    y: npt.ArrayLike,
    prediction: npt.ArrayLike,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
    *,
    level: float = 0.95,
) -> Estimate:
    """Mean of the hit rates among rising and among falling labels; 0.5 for a forecast of one sign.

    Parameters
    ----------
    y, prediction:
        Labels and forecasts, fractions, shape (n,); only rows count where both differ from zero.
    decision_us, horizon_minutes:
        Decision times (microseconds since the epoch, UTC), shape (n,), and label horizon.
    level:
        Probability that the interval covers, a number: 0.8, 0.9, 0.95 or 0.98.

    Returns
    -------
    Estimate
        None where the rows that count do not both rise and fall.

    Raises
    ------
    DataError
        The arrays do not fit together.

    References
    ----------
    Brodersen et al. (2010), The balanced accuracy and its posterior distribution, ICPR.
    """
    labels, forecasts = forecast_pair(y, prediction)
    checked_rows(labels, decision_us, horizon_minutes)
    counted = (labels != 0) & (forecasts != 0)
    up, hit = labels[counted] > 0, (labels[counted] > 0) == (forecasts[counted] > 0)
    if up.all() or not up.any():
        return Estimate(None)
    rising, falling = float(hit[up].mean()), float(hit[~up].mean())
    influence = np.where(up, (hit - rising) / up.mean(), (hit - falling) / (~up).mean()) / 2
    value = (rising + falling) / 2
    margin = hac_margin(influence, np.asarray(decision_us)[counted], horizon_minutes, level=level)
    if margin is None:
        return Estimate(value)
    return Estimate(value, max(0.0, value - margin), min(1.0, value + margin))


def correlation(
    y: npt.ArrayLike,
    prediction: npt.ArrayLike,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
    *,
    level: float = 0.95,
) -> Estimate:
    """Pearson correlation of forecast and label, the information coefficient.

    The interval is symmetric on Fisher's scale artanh(r).

    Parameters
    ----------
    y, prediction:
        Labels and forecasts, fractions, shape (n,); all rows count.
    decision_us, horizon_minutes, level:
        As for `balanced_accuracy`.

    Returns
    -------
    Estimate
        None where the label or the forecast is constant.

    Raises
    ------
    DataError
        The arrays do not fit together.

    References
    ----------
    Grinold and Kahn (2000), Active Portfolio Management, chapter 6. Devlin, Gnanadesikan and Kettenring
    (1975), Robust estimation and outlier detection with correlation coefficients, Biometrika 62.
    """
    labels, forecasts = forecast_pair(y, prediction)
    if np.ptp(labels) == 0 or np.ptp(forecasts) == 0:
        return Estimate(None)
    a, b = _standardised(labels), _standardised(forecasts)
    value = float(np.clip(np.mean(a * b), -1, 1))
    if 1 - value**2 < 1e-12:
        return Estimate(value)
    influence = (a * b - value * (a**2 + b**2) / 2) / (1 - value**2)
    margin = hac_margin(influence, decision_us, horizon_minutes, level=level)
    if margin is None:
        return Estimate(value)
    low, high = np.tanh(np.arctanh(value) + np.array([-margin, margin]))
    return Estimate(value, float(low), float(high))


def rank_correlation(y: npt.ArrayLike, prediction: npt.ArrayLike) -> float | None:
    """Spearman's rank correlation of forecast and label; None where one of them is constant."""
    from scipy.stats import rankdata

    labels, forecasts = forecast_pair(y, prediction)
    if np.ptp(labels) == 0 or np.ptp(forecasts) == 0:
        return None
    return float(np.mean(_standardised(rankdata(labels)) * _standardised(rankdata(forecasts))))


def skill(
    y: npt.ArrayLike,
    prediction: npt.ArrayLike,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
    *,
    level: float = 0.95,
) -> Estimate:
    """R² over the zero forecast, 1 − Σ(y − prediction)² / Σy², with its interval.

    Parameters
    ----------
    y, prediction:
        Labels and forecasts, fractions, shape (n,); all rows count.
    decision_us, horizon_minutes, level:
        As for `balanced_accuracy`.

    Returns
    -------
    Estimate
        None where every label is zero. The interval may reach below −1 or above 1.

    Raises
    ------
    DataError
        The arrays do not fit together.
    """
    labels, forecasts = forecast_pair(y, prediction)
    if not np.any(labels):
        return Estimate(None)
    saved, total = labels**2 - (labels - forecasts) ** 2, labels**2
    value = float(saved.mean() / total.mean())
    influence = (saved - value * total) / total.mean()
    margin = hac_margin(influence, decision_us, horizon_minutes, level=level)
    return Estimate.around(value, margin)


def calibration(
    y: npt.ArrayLike,
    prediction: npt.ArrayLike,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
    *,
    level: float = 0.95,
) -> Calibration:
    """Regress labels on forecasts and say how sure the slope is.

    Parameters
    ----------
    y, prediction:
        Labels and forecasts, fractions, shape (n,); all rows count.
    decision_us, horizon_minutes, level:
        As for `balanced_accuracy`.

    Raises
    ------
    DataError
        The arrays do not fit together.

    References
    ----------
    Mincer and Zarnowitz (1969), The evaluation of economic forecasts, NBER.
    """
    labels, forecasts = forecast_pair(y, prediction)
    if np.ptp(forecasts) == 0:
        return Calibration(None, None, None, None)
    centred = forecasts - forecasts.mean()
    spread = float(np.mean(centred**2))
    slope = float(np.mean(centred * labels)) / spread
    intercept = float(labels.mean() - slope * forecasts.mean())
    influence = centred * (labels - intercept - slope * forecasts) / spread
    ends = Estimate.around(slope, hac_margin(influence, decision_us, horizon_minutes, level=level))
    return Calibration(slope, intercept, ends.low, ends.high)


def _standardised(x: FloatArray) -> FloatArray:
    return np.asarray((x - x.mean()) / x.std(), dtype=np.float64)
