"""Standard errors of means of overlapping rows.

A label over 30 minutes that is formed every minute overlaps with its 29 neighbours, so whatever is averaged
over rows is correlated over the horizon and beyond. Standard errors are therefore heteroskedasticity and
autocorrelation consistent (HAC): a Bartlett kernel with lags up to four horizons. Lags are counted in minutes
of actual time, not in rows: two rows on either side of a night are unrelated, however close they lie in the
table.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

__all__ = [
    "BANDWIDTH_HORIZONS",
    "LEAST_BANDWIDTHS",
    "checked_rows",
    "hac_margin",
    "hac_standard_error",
    "horizon_and_freedom",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BANDWIDTH_HORIZONS = 4
"""Bartlett lags reach this many horizons."""

LEAST_BANDWIDTHS = 4
"""Rows hold at least so many bandwidths, or there is no interval: it would be too narrow."""

_MINUTE_US = 60_000_000
_NO_VARIATION = 1e-12
_CRITICAL = {
    0.8: (1.2816, 1.3040, 0.5135, -0.3386),
    0.9: (1.6449, 2.1859, 0.3142, -0.3427),
    0.95: (1.9600, 2.9694, 0.4160, -0.5324),
    0.98: (2.3263, 4.1618, 0.5368, -0.9060),
}
"""Of a two-sided interval by level: coefficients of 1, b, b² and b³ for the Bartlett window, b its width in
units of the rows."""


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
    values, minutes = checked_rows(x, decision_us, horizon_minutes)
    # The Bartlett kernel is a box convolved with itself, so the double sum over pairs is the sum of squared
    # moving sums of width `lags + 1` over the minute grid, divided by that width: linear time, and never
    # negative. Gaps longer than the width are shortened to it, which changes no term.
    width = BANDWIDTH_HORIZONS * horizon_minutes + 1
    distinct, row = np.unique(minutes, return_inverse=True)
    steps = np.minimum(np.diff(distinct), width)
    position = width + np.concatenate([[0], np.cumsum(steps)])
    grid = np.zeros(int(position[-1]) + width + 1)
    grid[position] = np.bincount(row, weights=values - values.mean())
    total = np.cumsum(grid)
    moving = total[width:] - total[:-width]
    return float(np.sqrt(np.sum(moving**2) / width) / len(values))


def hac_margin(
    x: npt.ArrayLike, decision_us: npt.ArrayLike, horizon_minutes: int, *, level: float = 0.95
) -> float | None:
    """Half the width of the two-sided confidence interval of the mean of `x`.

    `hac_standard_error` times the quantile of its fixed-b distribution, which knows that the estimate of the
    variance is itself noisy, and too small on average, where the rows hold few bandwidths.

    Parameters
    ----------
    x, decision_us, horizon_minutes:
        As for `hac_standard_error`.
    level:
        Probability that the interval covers the mean: 0.8, 0.9, 0.95 or 0.98.

    Returns
    -------
    float or None
        In units of `x`. None where the rows hold less than `LEAST_BANDWIDTHS` bandwidths, or do not vary.

    Raises
    ------
    DataError
        As `hac_standard_error`, or the level is another one.

    References
    ----------
    Kiefer and Vogelsang (2005), A new asymptotic theory for heteroskedasticity-autocorrelation robust tests,
    Econometric Theory 21, table 1 (Bartlett).
    """
    if level not in _CRITICAL:
        msg = f"hac_margin: level={level}; required: one of {list(_CRITICAL)}"
        raise DataError(msg, hint="use 0.95")
    _, minutes = checked_rows(x, decision_us, horizon_minutes)
    b = _bandwidth_rows(minutes, horizon_minutes) / len(minutes)
    error = hac_standard_error(x, decision_us, horizon_minutes)
    if b * LEAST_BANDWIDTHS > 1 or error <= _NO_VARIATION * float(np.abs(x).max()):
        return None
    return float(np.polynomial.polynomial.polyval(b, _CRITICAL[level])) * error


def checked_rows(
    x: npt.ArrayLike, decision_us: npt.ArrayLike, horizon_minutes: int
) -> tuple[FloatArray, IntArray]:
    """Values as float64 and decision times in minutes, shape (n,) each.

    Raises
    ------
    DataError
        The arrays differ in shape, are empty, hold a value that is not finite, or the horizon is below 1.
    """
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


def horizon_and_freedom(minutes: IntArray, horizon_minutes: int) -> tuple[int, float]:
    """Horizon in rows, and the degrees of freedom of the variance estimate.

    min(n − 1, 3 · n / bandwidth), the equivalent degrees of freedom of the Bartlett window (Priestley, 1981,
    Spectral Analysis and Time Series, table 6.2).
    """
    n = len(minutes)
    freedom = max(1.0, min(n - 1.0, 3 * n / _bandwidth_rows(minutes, horizon_minutes)))
    return int(np.ceil(horizon_minutes / _spacing(minutes))), freedom


def _bandwidth_rows(minutes: IntArray, horizon_minutes: int) -> float:
    """Reach of the Bartlett window in rows, at least 1."""
    return max((BANDWIDTH_HORIZONS * horizon_minutes + 1) / _spacing(minutes), 1.0)


def _spacing(minutes: IntArray) -> float:
    """Minutes from row to row, the usual ones."""
    gaps = np.diff(np.unique(minutes))
    return float(np.median(gaps)) if len(gaps) else 1.0
