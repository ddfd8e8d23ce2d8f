"""Significance of forecast comparisons with overlapping labels.

Loss differences of overlapping labels are correlated over the horizon and beyond, so every test here stands
on the HAC standard errors of `marketray.evaluation.hac`: a Bartlett kernel with lags up to four horizons. A
truncation at horizon − 1 rejects far too often and is not offered.

Returns are calm at noon and wild after the open, and a few wild hours decide a plain mean of squared errors.
Losses divided by the square of a volatility forecast weigh all hours alike, so that the same skill is found
in fewer rows (`scaled_diebold_mariano`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.hac import checked_rows, hac_standard_error, horizon_and_freedom

__all__ = [
    "DMResult",
    "clark_west",
    "diebold_mariano",
    "hac_standard_error",
    "minimum_detectable_r2",
    "scaled_diebold_mariano",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DMResult:
    """A one-sided test of "a is better than b" on the mean of a difference of losses.

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
    a, minutes = checked_rows(loss_a, decision_us, horizon_minutes)
    b, _ = checked_rows(loss_b, decision_us, horizon_minutes)
    difference = b - a
    n = len(difference)
    steps, freedom = horizon_and_freedom(minutes, horizon_minutes)
    if n <= 2 * steps:
        msg = f"diebold_mariano: got {n} rows; required: more than two horizons of rows ({2 * steps})"
        raise DataError(msg, hint="use a longer evaluation block")
    mean = float(difference.mean())
    se = hac_standard_error(difference, decision_us, horizon_minutes)
    variance = float(np.mean((difference - mean) ** 2))
    if np.sqrt(variance) <= 1e-12 * abs(mean) or se == 0:
        if mean != 0:
            msg = f"diebold_mariano: the losses differ by the constant {mean:g}; required: some variation"
            raise DataError(msg, hint="check that both losses come from forecasts of the same rows")
        return DMResult(0.0, 1.0, 0.0, 0.0, n, float(n), freedom)
    correction = np.sqrt((n + 1 - 2 * steps + steps * (steps - 1) / n) / n)
    statistic = float(correction * mean / se)
    return DMResult(statistic, _upper_tail(statistic, freedom), mean, se, n, variance / se**2, freedom)


def scaled_diebold_mariano(
    loss_a: npt.ArrayLike,
    loss_b: npt.ArrayLike,
    scale: npt.ArrayLike,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
) -> DMResult:
    """`diebold_mariano` on losses divided by the square of a volatility known at the decision.

    Where a has no skill at any time both tests hold their size. Where it has skill at all times this one
    finds it in fewer rows, since it gives no hour more weight than its volatility forecast allows. Where
    skill comes and goes with volatility the two answer different questions: this one whether the forecast
    is better in units of risk, the plain one whether its mean squared error is smaller.

    Parameters
    ----------
    loss_a, loss_b:
        Losses in squared units of the label, e.g. squared errors, shape (n,).
    scale:
        Volatility of the label up to a constant, known at the decision, positive, shape (n,); such as
        `marketray.evaluation.volatility.ScaleForecast.of`, fitted on training rows.
    decision_us, horizon_minutes:
        As for `diebold_mariano`.

    Returns
    -------
    DMResult
        `mean_difference` and `hac_se` are in units of loss / scale².

    Raises
    ------
    DataError
        As `diebold_mariano`, or a scale is not a finite positive number.

    References
    ----------
    Diebold and Mariano (1995), section 1.1: any loss will do. Patton (2011), Volatility forecast comparison
    using imperfect volatility proxies, Journal of Econometrics 160, and Hansen and Lunde (2005), A forecast
    comparison of volatility models, JAE 20, on losses relative to the variance.
    """
    weight = _weights(scale)
    a, b = np.asarray(loss_a, dtype=np.float64), np.asarray(loss_b, dtype=np.float64)
    if a.shape != weight.shape or b.shape != weight.shape:
        msg = f"losses have shapes {a.shape} and {b.shape}, scale {weight.shape}; required: one (n,)"
        raise DataError(msg, hint="pass one loss and one scale a row")
    return diebold_mariano(a * weight, b * weight, decision_us, horizon_minutes)


def clark_west(
    y: npt.ArrayLike,
    f_small: npt.ArrayLike,
    f_large: npt.ArrayLike,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
) -> DMResult:
    """Test whether the larger of two nested models knows more than the smaller one (one-sided).

    The larger model's squared errors are reduced by (f_small − f_large)², the noise that estimating its
    further parameters adds. That asks whether the larger model would be better with infinite data, not
    whether it is better as fitted: a reason to go on with it, none to promote it.

    Parameters
    ----------
    y:
        Labels, shape (n,).
    f_small, f_large:
        Forecasts of the nested model (0 for the zero forecast) and of the one that contains it, shape (n,).
    decision_us, horizon_minutes:
        As for `diebold_mariano`.

    Raises
    ------
    DataError
        As `diebold_mariano`.

    References
    ----------
    Clark and West (2007), Approximately normal tests for equal predictive accuracy in nested models, Journal
    of Econometrics 138, equation 3.1.
    """
    label, small, large = (np.asarray(v, dtype=np.float64) for v in (y, f_small, f_large))
    if label.shape != small.shape or label.shape != large.shape:
        msg = f"y has shape {label.shape}, the forecasts {small.shape} and {large.shape}; required: one (n,)"
        raise DataError(msg, hint="pass one label and one forecast of each model a row")
    adjusted = (label - large) ** 2 - (small - large) ** 2
    return diebold_mariano(adjusted, (label - small) ** 2, decision_us, horizon_minutes)


def minimum_detectable_r2(
    y: npt.ArrayLike,
    prediction: npt.ArrayLike | None,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    scale: npt.ArrayLike | None = None,
) -> float:
    """Smallest true R² over the zero forecast that the one-sided test would find with probability `power`.

    A calibrated forecast with R² = ρ improves the mean squared error by ρ·mean(y²), and the standard error of
    that improvement is 2·se(mean(y·f)), which grows with √ρ. Equating the improvement to (t_{1−α} + t_power)
    standard errors gives ρ = 4 (t_{1−α} + t_power)² se(mean(y·f))² / (mean(y²)·mean(f²)). The scale of
    `prediction` cancels; only its persistence and its relation to the label's volatility matter. With losses
    weighted by w = 1 / scale² the same steps give
    ρ = 4 (t_{1−α} + t_power)² se(mean(w·y·f))² · mean(f²) / (mean(y²)·mean(w·f²)²), again an unweighted R².

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
    scale:
        As for `scaled_diebold_mariano`, shape (n,). None: the plain test.

    Raises
    ------
    DataError
        The arrays do not fit together, every label is zero, or a scale is not a finite positive number.
    """
    from scipy.stats import t

    labels, minutes = checked_rows(y, decision_us, horizon_minutes)
    shape = np.ones_like(labels)
    if prediction is not None:
        given, _ = checked_rows(prediction, decision_us, horizon_minutes)
        shape = given if np.any(given) else shape
    if not np.any(labels):
        msg = "minimum_detectable_r2: y is zero everywhere; required: some variation"
        raise DataError(msg, hint="check the labels")
    _, freedom = horizon_and_freedom(minutes, horizon_minutes)
    weight = np.ones_like(labels) if scale is None else _weights(scale)
    weight = weight / weight.mean()
    product = weight * labels * shape
    se = hac_standard_error(product, decision_us, horizon_minutes)
    quantiles = t.ppf(1 - alpha, freedom) + t.ppf(power, freedom)
    gain = np.mean(weight * shape**2) ** 2 / np.mean(shape**2)
    return float(4 * quantiles**2 * se**2 / (np.mean(labels**2) * gain))


def _weights(scale: npt.ArrayLike) -> FloatArray:
    """1 / scale², shape (n,)."""
    values = np.asarray(scale, dtype=np.float64)
    unusable = ~(np.isfinite(values) & (values > 0))
    if unusable.any():
        msg = f"scale: {int(unusable.sum())} of {values.size} values are not positive numbers; required: none"
        raise DataError(msg, hint="floor it, or take marketray.evaluation.volatility.ScaleForecast")
    return 1 / np.square(values)


def _upper_tail(statistic: float, freedom: float) -> float:
    from scipy.stats import t

    return float(t.sf(statistic, freedom))
