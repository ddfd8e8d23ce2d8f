"""Correlations, balanced accuracy and calibration against known libraries and the jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from marketray.errors import DataError
from marketray.evaluation.association import (
    Calibration,
    Estimate,
    balanced_accuracy,
    calibration,
    correlation,
    rank_correlation,
    skill,
)
from tests.evaluation.simulations import HORIZON, ar1, critical_95, overlapping_labels

MINUTE = 60_000_000
N = 800
RNG = np.random.default_rng(8)
Y = RNG.standard_normal(N) * 1e-3
PREDICTION = 0.3 * Y + RNG.standard_normal(N) * 4e-4
US = np.arange(N) * MINUTE
QUANTILE = critical_95(N, 5)  # horizon 1: a window of five rows


def jackknife_error(statistic: object, *arrays: np.ndarray) -> float:
    """Standard error by leaving rows out, Bartlett-weighted over four lags; independent of any formula."""
    n = len(arrays[0])
    left = np.array([statistic(*(np.delete(a, i) for a in arrays)) for i in range(n)])  # type: ignore[operator]
    influence = (n - 1) * (left.mean() - left)
    weights = np.maximum(0, 1 - np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / 5)
    return float(np.sqrt(influence @ weights @ influence)) / n


def balanced(y: np.ndarray, f: np.ndarray) -> float:
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(y > 0, f > 0))


def test_balanced_accuracy_is_scikit_learns_with_a_jackknife_interval() -> None:
    got = balanced_accuracy(Y, PREDICTION, US, 1)
    assert got.value == pytest.approx(balanced(Y, PREDICTION), rel=1e-12)
    margin = QUANTILE * jackknife_error(balanced, Y, PREDICTION)
    assert got.value is not None
    assert got.low == pytest.approx(got.value - margin, rel=2e-3)
    assert got.high == pytest.approx(got.value + margin, rel=2e-3)


def test_balanced_accuracy_counts_rows_with_a_direction_and_needs_both() -> None:
    y, f = np.r_[Y, 0.0, 1.0], np.r_[PREDICTION, 1.0, 0.0]
    us = np.arange(N + 2) * MINUTE
    assert balanced_accuracy(y, f, us, 1) == balanced_accuracy(Y, PREDICTION, US, 1)
    assert balanced_accuracy(np.abs(Y), PREDICTION, US, 1) == Estimate(None, None, None)
    assert balanced_accuracy(Y, np.zeros(N), US, 1) == Estimate(None, None, None)
    assert balanced_accuracy(Y + 1e-4, np.ones(N), US, 1).value == 0.5  # however often labels rise


def test_correlation_is_pearsons_with_a_jackknife_interval_on_fishers_scale() -> None:
    got = correlation(Y, PREDICTION, US, 1)
    assert got.value == pytest.approx(stats.pearsonr(Y, PREDICTION).statistic, rel=1e-12)
    assert got.low is not None
    assert got.high is not None
    error = jackknife_error(lambda y, f: np.arctanh(np.corrcoef(y, f)[0, 1]), Y, PREDICTION)
    # leaving a row out also sees the second order, a few thousandths here
    assert np.arctanh(got.high) - np.arctanh(got.low) == pytest.approx(2 * QUANTILE * error, rel=1e-2)
    assert np.arctanh(got.high) + np.arctanh(got.low) == pytest.approx(2 * np.arctanh(got.value))


def test_a_perfect_correlation_has_no_interval_and_a_constant_no_correlation() -> None:
    assert correlation(Y, 2 * Y, US, 1) == Estimate(pytest.approx(1.0), None, None)
    assert correlation(Y, -Y, US, 1).value == pytest.approx(-1.0)
    assert correlation(Y, np.zeros(N), US, 1) == Estimate(None, None, None)
    assert correlation(np.ones(N), Y, US, 1) == Estimate(None, None, None)


def r2_over_zero(y: np.ndarray, f: np.ndarray) -> float:
    return float(1 - np.sum((y - f) ** 2) / np.sum(y**2))


def test_skill_is_r2_over_zero_with_a_jackknife_interval() -> None:
    got = skill(Y, PREDICTION, US, 1)
    assert got.value == pytest.approx(r2_over_zero(Y, PREDICTION), rel=1e-12)
    assert got.low is not None
    assert got.high is not None
    margin = QUANTILE * jackknife_error(r2_over_zero, Y, PREDICTION)
    assert got.high - got.low == pytest.approx(2 * margin, rel=1e-2)
    assert got.high + got.low == pytest.approx(2 * got.value)
    assert skill(np.zeros(N), PREDICTION, US, 1) == Estimate(None, None, None)
    assert skill(Y, np.zeros(N), US, 1) == Estimate(0.0, None, None)


def test_rank_correlation_is_spearmans_with_ties() -> None:
    rough = np.round(PREDICTION, 4)
    assert rank_correlation(Y, rough) == pytest.approx(stats.spearmanr(Y, rough).statistic, rel=1e-12)
    assert rank_correlation(Y, np.zeros(N)) is None


def test_calibration_is_the_robust_regression_of_statsmodels() -> None:
    import statsmodels.api as sm

    horizon = 7
    fit = sm.OLS(Y, sm.add_constant(PREDICTION)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 4 * horizon, "use_correction": False}
    )
    got = calibration(Y, PREDICTION, US, horizon)
    half = critical_95(N, 4 * horizon + 1) * fit.bse[1]
    expected = (fit.params[1], fit.params[0], fit.params[1] - half, fit.params[1] + half)
    assert got == Calibration(*(pytest.approx(v, rel=1e-8) for v in expected))
    assert calibration(Y, np.full(N, 0.2), US, horizon) == Calibration(None, None, None, None)


def test_rows_of_less_than_four_windows_have_figures_without_intervals() -> None:
    at = slice(0, 483)  # of a window of 121 rows
    for figure in (balanced_accuracy, correlation, skill):
        found = figure(Y[at], PREDICTION[at], US[at], HORIZON)
        assert found.value is not None
        assert (found.low, found.high) == (None, None)
    line = calibration(Y[at], PREDICTION[at], US[at], HORIZON)
    assert line.slope is not None
    assert (line.slope_low, line.slope_high) == (None, None)
    assert skill(Y[:484], PREDICTION[:484], US[:484], HORIZON).low is not None


def test_intervals_hold_for_overlapping_labels_and_persistent_forecasts() -> None:
    rng = np.random.default_rng(41)
    paths, n = 200, 6_000
    noise, f = overlapping_labels(rng, n, paths), ar1(rng, n, paths, 0.98)
    slope = 0.05 * noise.std()
    y = noise + slope * f
    true = 0.05 / np.sqrt(1 + 0.05**2)
    us = np.arange(n) * MINUTE
    inside = np.zeros(3)
    for k in range(paths):
        r, line = correlation(y[:, k], f[:, k], us, HORIZON), calibration(y[:, k], f[:, k], us, HORIZON)
        r2 = skill(y[:, k], slope * f[:, k], us, HORIZON)
        found = ((r.low, true, r.high), (line.slope_low, slope, line.slope_high), (r2.low, true**2, r2.high))
        inside += [low <= value <= high for low, value, high in found]  # type: ignore[operator]
    assert (np.abs(inside / paths - 0.95) < 0.045).all()


@pytest.mark.parametrize("figure", [balanced_accuracy, correlation, calibration, skill])
def test_arrays_that_do_not_fit_are_refused(figure: object) -> None:
    with pytest.raises(DataError, match="required: one shape"):
        figure([1.0, 2.0], [1.0], [0, 1], 30)  # type: ignore[operator]
    with pytest.raises(DataError, match="values have shape"):
        figure([1.0, -2.0, 3.0], [1.0, 2.0, -1.0], [0, MINUTE], 30)  # type: ignore[operator]
