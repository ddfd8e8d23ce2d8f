from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.errors import DataError
from marketray.evaluation.hac import hac_margin, hac_standard_error
from marketray.evaluation.significance import (
    clark_west,
    diebold_mariano,
    minimum_detectable_r2,
    scaled_diebold_mariano,
)
from tests.evaluation.simulations import HORIZON, ar1, critical_95, market, overlapping_labels

MINUTE = 60_000_000


def series(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.convolve(rng.standard_normal(n + 30), np.ones(30), mode="valid")[:n]


def clock(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int64) * MINUTE


def pairwise_variance(x: np.ndarray, minutes: np.ndarray, horizon: int) -> float:
    """The definition: a sum over all pairs of rows. Rounding may leave it just below zero."""
    z = x - x.mean()
    weight = np.maximum(0, 1 - np.abs(minutes[:, None] - minutes[None, :]) / (4 * horizon + 1))
    return float(z @ weight @ z) / len(x) ** 2


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.sampled_from([0, 1, 1, 1, 1, 2, 5, 20, 21, 22, 65, 4_000]), min_size=5, max_size=120),
    horizon=st.integers(1, 16),
    seed=st.integers(0, 1_000),
)
def test_standard_error_is_the_kernel_sum_over_actual_minutes(
    gaps: list[int], horizon: int, seed: int
) -> None:
    minutes = 27_000_000 + np.cumsum(gaps)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(len(gaps)) + 0.1 * np.cumsum(rng.standard_normal(len(gaps)))
    expected = pytest.approx(pairwise_variance(x, minutes, horizon), rel=1e-9, abs=1e-14)
    assert hac_standard_error(x, minutes * MINUTE, horizon) ** 2 == expected
    order = rng.permutation(len(x))
    shuffled = hac_standard_error(x[order], minutes[order] * MINUTE, horizon)
    assert shuffled**2 == expected


@pytest.mark.parametrize("horizon", [1, 7, 30])
def test_standard_error_on_a_full_grid_equals_statsmodels_and_arch(horizon: int) -> None:
    import statsmodels.api as sm
    from arch.covariance.kernel import Bartlett

    x = series(900)
    got = hac_standard_error(x, clock(900), horizon)
    options = {"maxlags": 4 * horizon, "use_correction": False}
    fit = sm.OLS(x, np.ones((900, 1))).fit(cov_type="HAC", cov_kwds=options)
    assert got == pytest.approx(float(fit.bse[0]), rel=1e-10)
    long_run = float(
        np.squeeze(np.asarray(Bartlett(x - x.mean(), bandwidth=4 * horizon, center=False).cov.long_run))
    )
    assert got == pytest.approx(np.sqrt(long_run / 900), rel=1e-10)


def test_margin_is_the_fixed_b_quantile_times_the_standard_error() -> None:
    import statsmodels.api as sm

    x, horizon = series(900), 7
    fit = sm.OLS(x, np.ones((900, 1))).fit(
        cov_type="HAC", cov_kwds={"maxlags": 4 * horizon, "use_correction": False}
    )
    expected = critical_95(900, 4 * horizon + 1) * float(fit.bse[0])
    assert hac_margin(x, clock(900), horizon) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("level", "normal"), [(0.8, 1.2816), (0.9, 1.6449), (0.95, 1.96), (0.98, 2.3263)])
def test_margin_over_many_windows_is_the_normal_one(level: float, normal: float) -> None:
    x = np.random.default_rng(5).standard_normal(100_000)
    margin = hac_margin(x, clock(len(x)), 1, level=level)
    assert margin == pytest.approx(normal * hac_standard_error(x, clock(len(x)), 1), rel=1e-3)


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.98])
def test_the_interval_of_the_fewest_rows_it_is_given_for_covers(phi: float) -> None:
    """Overlapping noise times a persistent forecast, and its sign: what the figures average."""
    rng = np.random.default_rng(17)
    horizon, paths = 10, 600
    n = 4 * (4 * horizon + 1)
    total = np.cumsum(rng.standard_normal((n + horizon, paths)), axis=0)
    noise = total[horizon:] - total[:-horizon]
    product = noise * ar1(rng, n, paths, phi)
    assert hac_margin(noise[1:, 0], clock(n - 1), horizon) is None
    for values in (noise, product, np.sign(product)):
        inside = [abs(x.mean()) <= (hac_margin(x, clock(n), horizon) or 0.0) for x in values.T]
        assert 0.9 <= np.mean(inside) <= 0.98


def test_values_that_do_not_vary_have_no_interval() -> None:
    assert hac_margin(np.full(900, 0.1), clock(900), 1) is None


def test_an_interval_of_an_unknown_level_is_refused() -> None:
    with pytest.raises(DataError, match=r"level=0.5; required: one of \[0.8, 0.9, 0.95, 0.98\]"):
        hac_margin(series(900), clock(900), 7, level=0.5)


def test_a_night_between_rows_separates_them() -> None:
    x = series(400)
    apart = np.r_[clock(200), clock(200) + 10_000 * MINUTE]
    z = x - x.mean()
    weight = np.maximum(0, 1 - np.abs(np.subtract.outer(np.arange(200), np.arange(200))) / 121)
    expected = np.sqrt(z[:200] @ weight @ z[:200] + z[200:] @ weight @ z[200:]) / 400
    assert hac_standard_error(x, apart, 30) == pytest.approx(expected, rel=1e-10)


def test_diebold_mariano_is_the_corrected_ratio_with_its_t_tail() -> None:
    from scipy.stats import t

    n, h = 2_000, 30
    a, b = series(n, 1) ** 2, series(n, 2) ** 2 + 1.0
    got = diebold_mariano(a, b, clock(n), h)
    d = b - a
    se = np.sqrt(pairwise_variance(d, np.arange(n), h))
    statistic = d.mean() / se * np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    assert got.mean_difference == pytest.approx(d.mean())
    assert got.hac_se == pytest.approx(se, rel=1e-9)
    assert got.statistic == pytest.approx(statistic, rel=1e-9)
    assert got.degrees_of_freedom == pytest.approx(3 * n / 121)
    assert got.p_value == pytest.approx(t.sf(statistic, 3 * n / 121), rel=1e-9)
    assert got.n_effective == pytest.approx(d.var() / se**2, rel=1e-9)
    assert got.n == n
    swapped = diebold_mariano(b, a, clock(n), h)
    assert swapped.statistic == pytest.approx(-got.statistic)
    assert swapped.p_value == pytest.approx(1 - got.p_value)


def test_independent_rows_count_in_full_and_overlapping_ones_once_a_horizon() -> None:
    rng = np.random.default_rng(3)
    n = 60_000
    independent = diebold_mariano(rng.standard_normal(n), np.zeros(n), clock(n), 30)
    assert independent.n_effective == pytest.approx(n, rel=0.15)
    overlapping = diebold_mariano(series(n), np.zeros(n), clock(n), 30)
    assert overlapping.n_effective == pytest.approx(n / 30, rel=0.15)


def test_coarse_bars_count_the_horizon_in_rows() -> None:
    x = series(400)
    coarse = diebold_mariano(x, np.zeros(400), clock(400) * 5, 30)
    h = 6
    correction = np.sqrt((400 + 1 - 2 * h + h * (h - 1) / 400) / 400)
    assert coarse.statistic == pytest.approx(correction * coarse.mean_difference / coarse.hac_se)
    assert coarse.degrees_of_freedom == pytest.approx(3 * 400 / (121 / 5))


def test_equal_losses_are_no_evidence() -> None:
    got = diebold_mariano(np.ones(200), np.ones(200), clock(200), 30)
    assert (got.statistic, got.p_value, got.mean_difference) == (0, 1, 0)


def test_a_constant_difference_is_refused() -> None:
    with pytest.raises(DataError, match="losses differ by the constant 1"):
        diebold_mariano(np.ones(200), 2 * np.ones(200), clock(200), 30)


def test_scaled_losses_are_weighted_losses_whatever_the_unit_of_the_scale() -> None:
    n = 2_000
    a, b = series(n, 1) ** 2, series(n, 2) ** 2 + 1.0
    scale = np.exp(0.3 * series(n, 3) / np.sqrt(30))
    got = scaled_diebold_mariano(a, b, scale, clock(n), 30)
    d = (b - a) / scale**2
    se = np.sqrt(pairwise_variance(d, np.arange(n), 30))
    correction = np.sqrt((n + 1 - 60 + 30 * 29 / n) / n)
    assert got.statistic == pytest.approx(correction * d.mean() / se, rel=1e-9)
    assert (got.mean_difference, got.hac_se) == (pytest.approx(d.mean()), pytest.approx(se))
    bps = scaled_diebold_mariano(a, b, 1e4 * scale, clock(n), 30)
    assert bps.p_value == pytest.approx(got.p_value, rel=1e-9)
    assert scaled_diebold_mariano(a, b, np.ones(n), clock(n), 30) == diebold_mariano(a, b, clock(n), 30)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_a_positive_number(bad: float) -> None:
    scale = np.ones(200)
    scale[7] = bad
    with pytest.raises(DataError, match="scale: 1 of 200 values are not positive numbers"):
        scaled_diebold_mariano(series(200), np.zeros(200), scale, clock(200), 30)
    with pytest.raises(DataError, match="scale: 1 of 200 values are not positive numbers"):
        minimum_detectable_r2(series(200), None, clock(200), 30, scale=scale)
    with pytest.raises(DataError, match=r"losses have shapes \(200,\) and \(200,\), scale \(3,\)"):
        scaled_diebold_mariano(series(200), np.zeros(200), np.ones(3), clock(200), 30)


def test_clark_west_is_the_regression_of_the_adjusted_difference_on_a_constant() -> None:
    import statsmodels.api as sm

    n, h = 1_500, 10
    y, small, large = series(n, 1), 0.1 * series(n, 2), 0.1 * series(n, 2) + 0.2 * series(n, 3)
    adjusted = (y - small) ** 2 - ((y - large) ** 2 - (small - large) ** 2)
    fit = sm.OLS(adjusted, np.ones(n)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 4 * h, "use_correction": False}
    )
    got = clark_west(y, small, large, clock(n), h)
    correction = np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    assert got.statistic == pytest.approx(correction * float(fit.tvalues[0]), rel=1e-9)
    assert got.mean_difference == pytest.approx(adjusted.mean())
    with pytest.raises(DataError, match=r"y has shape \(1500,\), the forecasts \(2,\) and \(1500,\)"):
        clark_west(y, small[:2], large, clock(n), h)


def test_clark_west_finds_a_relation_that_a_noisy_forecast_hides() -> None:
    n = 6_000
    signal, noise = (ar1(np.random.default_rng(s), n, 1, 0.9)[:, 0] for s in (1, 2))
    y = overlapping_labels(np.random.default_rng(3), n, 1)[:, 0] + signal
    forecast, zero = signal + 2 * noise, np.zeros(n)
    plain = diebold_mariano((y - forecast) ** 2, y**2, clock(n), HORIZON)
    assert plain.statistic < 0  # as fitted it is worse than zero
    assert clark_west(y, zero, forecast, clock(n), HORIZON).p_value < 0.01


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"got 60 rows; required: more than two horizons of rows \(60\)"):
        diebold_mariano(series(60), np.zeros(60), clock(60), 30)


@pytest.mark.parametrize(
    ("x", "us", "match"),
    [
        ([1.0, 2.0], [0], "required: one"),
        ([], [], "required: one"),
        ([1.0, float("nan")], [0, MINUTE], "1 of 2 values are not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(x: list[float], us: list[int], match: str) -> None:
    with pytest.raises(DataError, match=match):
        hac_standard_error(x, us, 30)


def test_a_horizon_is_at_least_a_minute() -> None:
    with pytest.raises(DataError, match="horizon_minutes=0; required: at least 1"):
        hac_standard_error([1.0, 2.0], [0, MINUTE], 0)


def rejected(y: np.ndarray, a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> list[bool]:
    """One-sided rejections at 5 % where both forecasts are equally good.

    First of two forecasts without skill, then of one that is twice too large (its skill and its noise cancel)
    against zero.
    """
    us, skilled = clock(len(y)), y + a / 2
    pair = scaled_diebold_mariano((y - a) ** 2, (y - b) ** 2, scale, us, HORIZON)
    zero = scaled_diebold_mariano((skilled - a) ** 2, skilled**2, scale, us, HORIZON)
    return [pair.p_value < 0.05, zero.p_value < 0.05]


def rejection_rates(paths: int, n: int, seed: int, *, r2: float = 0.02) -> np.ndarray:
    """Shares of `rejected` by the plain test on AR(1) forecasts."""
    rng = np.random.default_rng(seed)
    y = overlapping_labels(rng, n, paths)
    f, g = (np.sqrt(HORIZON * r2) * ar1(rng, n, paths, 0.98) for _ in range(2))
    return np.mean([rejected(y[:, k], f[:, k], g[:, k], np.ones(n)) for k in range(paths)], axis=0)


def scaled_rejection_rates(paths: int, n: int, seed: int, *, r2: float = 0.02) -> np.ndarray:
    """Shares of `rejected` by the scaled test on AR(1) forecasts, then on some that grow with volatility."""
    rng = np.random.default_rng(seed)
    y, scale = market(rng, n, paths)
    f, g = (np.sqrt(r2) * y.std() * ar1(rng, n, paths, 0.98) for _ in range(2))
    growth = scale / scale.mean()
    return np.mean(
        [
            rejected(y[:, k], f[:, k], g[:, k], scale[:, k])
            + rejected(y[:, k], growth[:, k] * f[:, k], growth[:, k] * g[:, k], scale[:, k])
            for k in range(paths)
        ],
        axis=0,
    )


@pytest.mark.parametrize("rates", [rejection_rates, scaled_rejection_rates])
def test_size_holds_in_a_few_hundred_simulations(rates: Callable[[int, int, int], np.ndarray]) -> None:
    # the bound is 6.5 % plus two standard errors of a share of 300
    assert rates(300, 6_000, 11).max() <= 0.065 + 2 * np.sqrt(0.065 * 0.935 / 300)


@pytest.mark.slow
@pytest.mark.parametrize("n", [6_000, 12_000])
@pytest.mark.parametrize("rates", [rejection_rates, scaled_rejection_rates])
def test_size_is_at_most_six_and_a_half_percent(rates: Callable[[int, int, int], np.ndarray], n: int) -> None:
    found = np.mean([rates(1_000, n, seed) for seed in (11, 12, 13, 14)], axis=0)
    print(f"{rates.__name__}, {n:,} rows, 4,000 simulations: {found.round(4).tolist()}")
    assert found.max() <= 0.065
    assert found.min() >= 0.035  # nor is it bought by never rejecting


def test_a_truncation_at_the_horizon_would_reject_too_often() -> None:
    """Why the bandwidth is four horizons: with Bartlett lags to horizon − 1 the same data reject far more."""
    rng = np.random.default_rng(21)
    paths, n = 400, 6_000
    y = overlapping_labels(rng, n, paths)
    z = y - y.mean(axis=0)
    total = np.vstack([np.zeros((HORIZON, paths)), np.cumsum(z, axis=0), np.zeros((HORIZON, paths))])
    total[HORIZON + n :] = total[HORIZON + n - 1]
    short = np.sqrt(((total[HORIZON:] - total[:-HORIZON]) ** 2).sum(axis=0) / HORIZON) / n
    long = np.array([hac_standard_error(y[:, k], clock(n), HORIZON) for k in range(paths)])
    assert np.mean(y.mean(axis=0) / short > 1.645) > 0.085
    assert np.mean(y.mean(axis=0) / long > 1.645) < 0.085


@pytest.mark.parametrize("phi", [0.0, 0.98])
def test_power_at_the_minimum_detectable_r2_is_what_it_says(phi: float) -> None:
    rng = np.random.default_rng(31)
    paths, n = 300, 4_000
    noise = overlapping_labels(rng, n, paths)
    forecast = ar1(rng, n, paths, phi)
    us = clock(n)
    found, rhos = 0, []
    for k in range(paths):
        rho = minimum_detectable_r2(noise[:, k], forecast[:, k], us, HORIZON)
        rhos.append(rho)
        f = forecast[:, k] * np.sqrt(rho * np.mean(noise[:, k] ** 2) / np.mean(forecast[:, k] ** 2))
        y = f + noise[:, k]
        found += diebold_mariano((y - f) ** 2, y**2, us, HORIZON).p_value < 0.05
    assert found / paths == pytest.approx(0.8, abs=0.07)
    independent = (1.645 + 0.842) ** 2 / n
    assert np.median(rhos) / independent > (0.8 if phi == 0 else 8)


def test_a_scale_lowers_the_detectable_r2_and_power_at_it_is_what_it_says() -> None:
    rng = np.random.default_rng(32)
    paths, n = 300, 4_000
    noise, scale = market(rng, n, paths)
    forecast = scale * ar1(rng, n, paths, 0.98)
    us = clock(n)
    found, plain, scaled = 0, [], []
    for k in range(paths):
        x, shape, s = noise[:, k], forecast[:, k], scale[:, k]
        plain.append(minimum_detectable_r2(x, shape, us, HORIZON))
        scaled.append(minimum_detectable_r2(x, shape, us, HORIZON, scale=s))
        f = shape * np.sqrt(scaled[-1] * np.mean(x**2) / np.mean(shape**2))
        y = f + x
        found += scaled_diebold_mariano((y - f) ** 2, y**2, s, us, HORIZON).p_value < 0.05
    assert found / paths == pytest.approx(0.8, abs=0.07)
    assert np.median(np.divide(scaled, plain)) < 0.85


def test_minimum_detectable_r2_of_independent_rows_is_the_textbooks() -> None:
    rng = np.random.default_rng(4)
    n = 50_000
    y, f = rng.standard_normal(n), rng.standard_normal(n)
    us = clock(n)
    # t² = n·ρ for a regression on one regressor; here the gain is tested, whose error is twice as large
    assert minimum_detectable_r2(y, f, us, 1) == pytest.approx(4 * (1.645 + 0.842) ** 2 / n, rel=0.1)
    assert minimum_detectable_r2(y, 7 * f, us, 1) == pytest.approx(minimum_detectable_r2(y, f, us, 1))
    assert minimum_detectable_r2(y, f, us, 1, power=0.95) > minimum_detectable_r2(y, f, us, 1, power=0.8)


def test_without_a_forecast_a_constant_one_is_assumed() -> None:
    y, us = series(5_000), clock(5_000)
    constant = minimum_detectable_r2(y, np.full(5_000, 0.3), us, 30)
    assert minimum_detectable_r2(y, None, us, 30) == pytest.approx(constant)
    assert minimum_detectable_r2(y, np.zeros(5_000), us, 30) == pytest.approx(constant)
    with pytest.raises(DataError, match="y is zero everywhere"):
        minimum_detectable_r2(np.zeros(100), None, clock(100), 30)
