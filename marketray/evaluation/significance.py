"""Significance of forecast comparisons with overlapping labels.

A label over 30 minutes that is formed every minute overlaps with its 29 neighbours, so loss differences are
correlated over the horizon and beyond. Standard errors are therefore heteroskedasticity and autocorrelation
consistent (HAC): a Bartlett kernel with lags up to four horizons. A truncation at horizon − 1 rejects far
too often and is not offered. Lags are counted in minutes of actual time, not in rows: two rows on either side
of a night are unrelated, however close they lie in the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

__all__ = [
    "BANDWIDTH_HORIZONS",
    "DMResult",
    "diebold_mariano",
    "hac_standard_error",
    "minimum_detectable_r2",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BANDWIDTH_HORIZONS = 4
"""Bartlett lags reach this many horizons."""

_MINUTE_US = 60_000_000


@dataclass(frozen=True)
class DMResult:
    """A one-sided Diebold–Mariano test of "a is better than b".

    Attributes
    ----------
    statistic:
        Small-sample corrected statistic; positive where a has the smaller loss.
    p_value:
        P(T > statistic) under equal accuracy, T Student's t with `degrees_of_freedom`.
    mean_difference:
        Mean of loss_b − loss_a, in units of the loss.
    hac_se:
        HAC standard error of `mean_difference`, before the small-sample correction.
    n:
        Number of rows.
    n_effective:
        Number of independent rows that would give the same standard error, var / hac_se².
    degrees_of_freedom:
        min(n − 1, 3 · n / bandwidth), the equivalent degrees of freedom of the Bartlett window.
    """

    statistic: float
    p_value: float
    mean_difference: float
    hac_se: float
    n: int
    n_effective: float
    degrees_of_freedom: float


def hac_standard_error(x: npt.ArrayLike, decision_us: npt.ArrayLike, horizon_minutes: int) -> float:
    """Standard error of the mean of `x`, robust to overlap over the horizon.

    Parameters
    ----------
    x:
        Values, shape (n,), finite, in any order of time.
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,). Rows of one minute (several
        instruments) count as fully dependent.
    horizon_minutes:
        Label horizon; the Bartlett weight of two rows d minutes apart is max(0, 1 − d / (4·horizon + 1)).

    Returns
    -------
    float
        sqrt(Σᵢ Σⱼ w(|tᵢ − tⱼ|)(xᵢ − x̄)(xⱼ − x̄)) / n, never negative.

    Raises
    ------
    DataError
        The arrays differ in shape, are empty, or hold a value that is not finite.

    References
    ----------
    Newey and West (1987), A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent
    covariance matrix, Econometrica 55.
    """
    values, minutes = _checked(x, decision_us, horizon_minutes)
    return _hac_se(values - values.mean(), minutes, horizon_minutes)


def diebold_mariano(
    loss_a: npt.ArrayLike, loss_b: npt.ArrayLike, decision_us: npt.ArrayLike, horizon_minutes: int
) -> DMResult:
    """Test whether forecast a has a smaller expected loss than forecast b (one-sided).

    Parameters
    ----------
    loss_a, loss_b:
        Losses of the two forecasts on the same rows, e.g. squared errors, shape (n,).
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,).
    horizon_minutes:
        Label horizon; labels cover (decision, decision + horizon].

    Returns
    -------
    DMResult
        Equal losses everywhere give statistic 0 and p-value 1: no difference is no evidence.

    Raises
    ------
    DataError
        The arrays do not fit together, hold values that are not finite, hold too few rows (more than two
        horizons' rows are required), or differ by one constant everywhere.

    References
    ----------
    Diebold and Mariano (1995), Comparing predictive accuracy, JBES 13. Harvey, Leybourne and Newbold (1997),
    Testing the equality of prediction mean squared errors, IJF 13, equation 9. Priestley (1981), Spectral
    Analysis and Time Series, table 6.2 (equivalent degrees of freedom 3·N/M of the Bartlett window).
    """
    a, minutes = _checked(loss_a, decision_us, horizon_minutes)
    b, _ = _checked(loss_b, decision_us, horizon_minutes)
    difference = b - a
    n = len(difference)
    steps, freedom = _scale(minutes, horizon_minutes)
    if n <= 2 * steps:
        msg = f"diebold_mariano: got {n} rows; required: more than two horizons of rows ({2 * steps})"
        raise DataError(msg, hint="use a longer evaluation block")
    mean = float(difference.mean())
    centred = difference - mean
    se = _hac_se(centred, minutes, horizon_minutes)
    variance = float(np.mean(centred**2))
    if np.sqrt(variance) <= 1e-12 * abs(mean) or se == 0:
        if mean != 0:
            msg = f"diebold_mariano: the losses differ by the constant {mean:g}; required: some variation"
            raise DataError(msg, hint="check that both losses come from forecasts of the same rows")
        return DMResult(0.0, 1.0, 0.0, 0.0, n, float(n), freedom)
    correction = np.sqrt((n + 1 - 2 * steps + steps * (steps - 1) / n) / n)
    statistic = float(correction * mean / se)
    return DMResult(statistic, _upper_tail(statistic, freedom), mean, se, n, variance / se**2, freedom)


def minimum_detectable_r2(
    y: npt.ArrayLike,
    prediction: npt.ArrayLike | None,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Smallest true R² over the zero forecast that the one-sided test would find with probability `power`.

    A calibrated forecast with R² = ρ improves the mean squared error by ρ·mean(y²), and the standard error of
    that improvement is 2·se(mean(y·f)), which grows with √ρ. Equating the improvement to (t_{1−α} + t_power)
    standard errors gives ρ = 4 (t_{1−α} + t_power)² se(mean(y·f))² / (mean(y²)·mean(f²)). The scale of
    `prediction` cancels; only its persistence and its relation to the label's volatility matter.

    Parameters
    ----------
    y:
        Labels, fractions, shape (n,).
    prediction:
        The forecast whose shape is assumed, shape (n,). None, or zero everywhere: a constant forecast.
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,).
    horizon_minutes:
        Label horizon.
    alpha, power:
        Level and power of the test, both inside (0, 1).

    Raises
    ------
    DataError
        The arrays do not fit together, or every label is zero.
    """
    from scipy.stats import t

    labels, minutes = _checked(y, decision_us, horizon_minutes)
    shape = np.ones_like(labels)
    if prediction is not None:
        given, _ = _checked(prediction, decision_us, horizon_minutes)
        shape = given if np.any(given) else shape
    if not np.any(labels):
        msg = "minimum_detectable_r2: y is zero everywhere; required: some variation"
        raise DataError(msg, hint="check the labels")
    _, freedom = _scale(minutes, horizon_minutes)
    product = labels * shape
    se = _hac_se(product - product.mean(), minutes, horizon_minutes)
    quantiles = t.ppf(1 - alpha, freedom) + t.ppf(power, freedom)
    return float(4 * quantiles**2 * se**2 / (np.mean(labels**2) * np.mean(shape**2)))


def _checked(
    x: npt.ArrayLike, decision_us: npt.ArrayLike, horizon_minutes: int
) -> tuple[FloatArray, IntArray]:
    values, minutes = np.asarray(x, dtype=np.float64), np.asarray(decision_us, dtype=np.int64) // _MINUTE_US
    if values.ndim != 1 or values.shape != minutes.shape or len(values) == 0:
        msg = f"values have shape {values.shape}, decision_us {minutes.shape}; required: one (n,)"
        raise DataError(msg, hint="pass one loss and one decision time a row")
    if not np.isfinite(values).all():
        msg = f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite; required: none"
        raise DataError(msg, hint="drop rows without a label or a forecast first")
    if horizon_minutes < 1:
        msg = f"horizon_minutes={horizon_minutes}; required: at least 1"
        raise DataError(msg)
    return values, minutes


def _scale(minutes: IntArray, horizon_minutes: int) -> tuple[int, float]:
    """Horizon in rows, and the degrees of freedom of the variance estimate."""
    n = len(minutes)
    gaps = np.diff(np.unique(minutes))
    spacing = float(np.median(gaps)) if len(gaps) else 1.0
    bandwidth_rows = (BANDWIDTH_HORIZONS * horizon_minutes + 1) / spacing
    freedom = max(1.0, min(n - 1.0, 3 * n / max(bandwidth_rows, 1.0)))
    return int(np.ceil(horizon_minutes / spacing)), freedom


def _hac_se(centred: FloatArray, minutes: IntArray, horizon_minutes: int) -> float:
    """Bartlett HAC standard error of a mean.

    The Bartlett kernel is a box convolved with itself, so the double sum over pairs is the sum of squared
    moving sums of width `lags + 1` over the minute grid, divided by that width: linear time, never negative.
    Gaps longer than the width are shortened to it, which changes no term.
    """
    width = BANDWIDTH_HORIZONS * horizon_minutes + 1
    distinct, row = np.unique(minutes, return_inverse=True)
    steps = np.minimum(np.diff(distinct), width)
    position = width + np.concatenate([[0], np.cumsum(steps)])
    grid = np.zeros(int(position[-1]) + width + 1)
    grid[position] = np.bincount(row, weights=centred)
    total = np.cumsum(grid)
    moving = total[width:] - total[:-width]
    return float(np.sqrt(np.sum(moving**2) / width) / len(centred))


def _upper_tail(statistic: float, freedom: float) -> float:
    from scipy.stats import t

    return float(t.sf(statistic, freedom))
