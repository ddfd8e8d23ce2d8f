"""Sharpe ratios that know how many were tried, and how likely the choice among them is overfitted.

Returns here are per period (a session, say), and so are the ratios; `sharpe_figures` states them per year.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

__all__ = [
    "SESSIONS_PER_YEAR",
    "deflated_sharpe",
    "expected_maximum_sharpe",
    "probabilistic_sharpe",
    "probability_of_overfitting",
    "sharpe_figures",
    "sharpe_ratio",
    "sharpe_standard_error",
]

FloatArray = npt.NDArray[np.float64]

SESSIONS_PER_YEAR = 252
"""Trading days of a year, for calendars with one session a day."""


def sharpe_ratio(returns: npt.ArrayLike) -> FloatArray:
    """Mean over standard deviation along the first axis, per period; 0 where nothing varies.

    Parameters
    ----------
    returns:
        Excess returns, shape (periods,) or (periods, m).

    Raises
    ------
    DataError
        There are fewer than two periods, or a return is not finite.
    """
    values = np.asarray(returns, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        msg = f"returns have shape {values.shape}; required: at least two periods, all finite"
        raise DataError(msg, hint="use a longer history")
    return _ratio(values.mean(axis=0), np.square(values).mean(axis=0), len(values) / (len(values) - 1))


def sharpe_standard_error(sharpe: float, n: int, skewness: float, kurtosis: float) -> float:
    """Standard error of a Sharpe ratio per period over n periods of independent returns.

    Parameters
    ----------
    sharpe, skewness, kurtosis:
        Of the returns; a normal distribution has kurtosis 3.

    References
    ----------
    Mertens (2002), Comments on variance of the IID estimator in Lo (2002).
    """
    return float(np.sqrt((1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2) / (n - 1)))


def probabilistic_sharpe(
    sharpe: float, n: int, *, skewness: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0
) -> float:
    """Probability that the true Sharpe ratio exceeds `benchmark`, both per period.

    References
    ----------
    Bailey and López de Prado (2012), The Sharpe ratio efficient frontier, Journal of Risk 15, equation 11.
    """
    from scipy.stats import norm

    return float(norm.cdf((sharpe - benchmark) / sharpe_standard_error(sharpe, n, skewness, kurtosis)))


def expected_maximum_sharpe(variance: float, trials: int) -> float:
    """Largest of `trials` Sharpe ratios that have no skill but this variance, on average.

    √variance · ((1 − γ) Φ⁻¹(1 − 1/N) + γ Φ⁻¹(1 − 1/(N·e))) with Euler's γ; 0 for one trial.

    Raises
    ------
    DataError
        There is no trial.

    References
    ----------
    Bailey and López de Prado (2014), The deflated Sharpe ratio, Journal of Portfolio Management 40.
    """
    from scipy.stats import norm

    if trials < 1:
        msg = f"trials={trials}; required: at least 1"
        raise DataError(msg, hint="count every trial, pruned ones and those of earlier runs too")
    if trials == 1:
        return 0.0
    quantiles = norm.ppf([1 - 1 / trials, 1 - 1 / (trials * np.e)])
    return float(np.sqrt(variance) * ((1 - np.euler_gamma) * quantiles[0] + np.euler_gamma * quantiles[1]))


def deflated_sharpe(
    sharpe: float, n: int, variance: float, trials: int, *, skewness: float = 0.0, kurtosis: float = 3.0
) -> float:
    """Probability that the true Sharpe ratio exceeds what the best of `trials` shows without any skill.

    Parameters
    ----------
    sharpe, n, skewness, kurtosis:
        The chosen strategy's ratio per period, its periods, and its returns' moments.
    variance:
        Variance of the ratios per period among the trials.
    trials:
        How many were tried.

    References
    ----------
    Bailey and López de Prado (2014), The deflated Sharpe ratio, Journal of Portfolio Management 40.
    """
    benchmark = expected_maximum_sharpe(variance, trials)
    return probabilistic_sharpe(sharpe, n, skewness=skewness, kurtosis=kurtosis, benchmark=benchmark)


def sharpe_figures(
    returns: npt.ArrayLike,
    trial_returns: npt.ArrayLike,
    trials: int,
    *,
    periods_per_year: float = SESSIONS_PER_YEAR,
    level: float = 0.95,
) -> dict[str, float]:
    """Sharpe ratio of the chosen strategy with its interval, and what is left of it after the search.

    Parameters
    ----------
    returns:
        Returns of the chosen strategy on rows it was not chosen on, shape (periods,).
    trial_returns:
        Returns of the trials that finished, shape (other periods, m); their ratios' variance stands for
        that of all trials.
    trials:
        Number of all trials, pruned ones and those of earlier runs too.
    periods_per_year:
        To state ratios per year, × √periods_per_year.
    level:
        Level of the interval.

    Returns
    -------
    dict
        annual, low, high; probabilistic: P(true ratio > 0); deflated: P(true ratio > expected_maximum);
        expected_maximum: per year.

    Raises
    ------
    DataError
        As `sharpe_ratio` and `expected_maximum_sharpe`.
    """
    from scipy.stats import kurtosis, norm, skew

    values = np.asarray(returns, dtype=np.float64)
    ratio, n = float(sharpe_ratio(values)), len(values)
    third, fourth = (0.0, 3.0) if np.ptp(values) == 0 else (float(skew(values)), float(kurtosis(values)) + 3)
    variance = float(np.var(sharpe_ratio(trial_returns), ddof=1)) if np.shape(trial_returns)[1] > 1 else 0.0
    half = float(norm.ppf(0.5 + level / 2)) * sharpe_standard_error(ratio, n, third, fourth)
    year = float(np.sqrt(periods_per_year))
    moments = {"skewness": third, "kurtosis": fourth}
    return {
        "annual": year * ratio,
        "low": year * (ratio - half),
        "high": year * (ratio + half),
        "probabilistic": probabilistic_sharpe(ratio, n, **moments),
        "deflated": deflated_sharpe(ratio, n, variance, trials, **moments),
        "expected_maximum": year * expected_maximum_sharpe(variance, trials),
    }


def probability_of_overfitting(returns: npt.ArrayLike, splits: int = 16) -> dict[str, float | int]:
    """How often the candidate that is best in sample is below the median out of sample.

    Combinatorially symmetric cross-validation: the periods are cut into `splits` blocks in time order; every
    half of the blocks in turn is the sample, the other half is out of sample. About 0.5 means that the choice
    tells nothing.

    Parameters
    ----------
    returns:
        Returns of the candidates, shape (periods, m).
    splits:
        Number of blocks, even.

    Returns
    -------
    dict
        probability: share of the C(splits, splits/2) choices with logit ≤ 0, the logit being that of the
        chosen one's relative rank out of sample by Sharpe ratio; splits; logits_median.

    Raises
    ------
    DataError
        `splits` is odd, or there are fewer than two periods a block or two candidates.

    References
    ----------
    Bailey, Borwein, López de Prado and Zhu (2017), The probability of backtest overfitting, Journal of
    Computational Finance 20, section 3.
    """
    values = np.asarray(returns, dtype=np.float64)
    if splits < 2 or splits % 2:
        msg = f"splits={splits}; required: an even number, at least 2"
        raise DataError(msg, hint="16 is customary")
    if values.ndim != 2 or values.shape[1] < 2 or len(values) < 2 * splits:
        msg = f"returns have shape {values.shape}; required: {2 * splits} periods, 2 candidates or more"
        raise DataError(msg, hint="use a longer history, more trials or fewer splits")
    first = np.linspace(0, len(values), splits, endpoint=False).astype(np.intp)
    sums, squares = (np.add.reduceat(x, first, axis=0) for x in (values, values**2))
    rows = np.diff(np.append(first, len(values))).astype(np.float64)
    halves = list(combinations(range(splits), splits // 2))
    sample = np.zeros((len(halves), splits))
    np.put_along_axis(sample, np.array(halves), 1.0, axis=1)
    inside = _ratio_of_blocks(sample, sums, squares, rows)
    outside = _ratio_of_blocks(1 - sample, sums, squares, rows)
    chosen = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
    rank = (outside < chosen).sum(axis=1) + ((outside == chosen).sum(axis=1) + 1) / 2
    relative = rank / (values.shape[1] + 1)
    logits = np.log(relative / (1 - relative))
    return {
        "probability": float(np.mean(logits <= 0)),
        "splits": splits,
        "logits_median": float(np.median(logits)),
    }


def _ratio_of_blocks(
    picked: FloatArray, sums: FloatArray, squares: FloatArray, rows: FloatArray
) -> FloatArray:
    """Sharpe ratios over the picked blocks, shape (choices, m)."""
    n = (picked @ rows)[:, None]
    return _ratio(picked @ sums / n, picked @ squares / n, n / (n - 1))


def _ratio(mean: FloatArray, mean_square: FloatArray, correction: float | FloatArray) -> FloatArray:
    variance = np.asarray(mean_square - mean**2)
    varies = variance > 1e-14 * np.asarray(mean_square)
    return np.asarray(np.where(varies, mean / np.sqrt(np.where(varies, variance * correction, 1.0)), 0.0))
