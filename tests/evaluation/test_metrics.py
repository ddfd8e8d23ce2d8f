from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.dataset.load import Block
from marketray.errors import DataError
from marketray.evaluation import metrics
from tests.evaluation.simulations import critical_95

RNG = np.random.default_rng(5)
Y = RNG.standard_normal(400) * 1e-3
PREDICTION = 0.2 * Y + RNG.standard_normal(400) * 4e-4


def block(columns: tuple[str, ...], values: np.ndarray) -> Block:
    n = len(values)
    us = np.arange(n, dtype=np.int64) * 60_000_000
    return Block(
        np.array([f"X@{k}" for k in range(n)]),
        us,
        us,
        us,
        np.zeros(n),
        np.ones(n),
        columns,
        values.astype(np.float32),
    )


def test_errors_equal_the_known_library() -> None:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    assert metrics.rmse(Y, PREDICTION) == pytest.approx(root_mean_squared_error(Y, PREDICTION), rel=1e-12)
    assert metrics.mae(Y, PREDICTION) == pytest.approx(mean_absolute_error(Y, PREDICTION), rel=1e-12)
    mean = np.full_like(Y, Y.mean())
    assert metrics.r2_oos(Y, PREDICTION, mean) == pytest.approx(r2_score(Y, PREDICTION), rel=1e-12)
    np.testing.assert_array_equal(metrics.squared_errors(Y, PREDICTION), (Y - PREDICTION) ** 2)


def test_percent_is_a_hundred_times_the_fraction() -> None:
    assert metrics.rmse_pct([0.001, -0.001], [0.0, 0.0]) == pytest.approx(0.1)
    assert metrics.mae_pct([0.001, -0.003], [0.0, 0.0]) == pytest.approx(0.2)


@given(st.floats(-2, 2), st.floats(1e-3, 1e3))
def test_r2_is_one_less_the_ratio_of_errors_whatever_the_unit(scale: float, unit: float) -> None:
    forecast, zero = scale * PREDICTION, np.zeros_like(Y)
    expected = 1 - (metrics.rmse(Y, forecast) / metrics.rmse(Y, zero)) ** 2
    assert metrics.r2_oos(Y * unit, forecast * unit, zero) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert metrics.r2_oos(Y, Y, zero) == 1
    assert metrics.r2_oos(Y, zero, zero) == 0


def test_an_exact_baseline_has_no_r2() -> None:
    with pytest.raises(DataError, match="the baseline has no error on these rows"):
        metrics.r2_oos(Y, PREDICTION, Y)


def test_hit_rate_counts_only_rows_with_a_direction() -> None:
    got = metrics.hit_rate([1, -1, 1, 0, 1, -1], [2, -3, -1, 1, 0, -1])
    assert got == metrics.HitRate(0.75, None, None, 4)


def test_hit_rate_interval_is_that_of_the_mean_of_correlated_hits() -> None:
    import statsmodels.api as sm

    hits = (Y > 0) == (PREDICTION > 0)
    us = np.arange(400) * 60_000_000
    fit = sm.OLS(hits.astype(float), np.ones(400)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 20, "use_correction": False}
    )
    half = critical_95(400, 21) * float(fit.bse[0])
    got = metrics.hit_rate(Y, PREDICTION, us, 5)
    assert (got.low, got.high) == (pytest.approx(hits.mean() - half), pytest.approx(hits.mean() + half))
    with pytest.raises(DataError, match=r"values have shape \(400,\), decision_us \(3,\)"):
        metrics.hit_rate(Y, PREDICTION, us[:3], 5)


def test_a_hit_rate_of_few_rows_or_of_hits_alone_has_no_interval() -> None:
    us = np.arange(400) * 60_000_000
    few = metrics.hit_rate(Y[:83], PREDICTION[:83], us[:83], 5)  # of a window of 21 rows
    assert few == metrics.HitRate(pytest.approx(((Y > 0) == (PREDICTION > 0))[:83].mean()), None, None, 83)
    assert metrics.hit_rate(Y[:84], PREDICTION[:84], us[:84], 5).low is not None
    assert metrics.hit_rate(Y, Y, us, 5) == metrics.HitRate(1.0, None, None, 400)


def test_a_forecast_without_direction_has_no_hit_rate() -> None:
    assert metrics.hit_rate(Y, np.zeros_like(Y)) == metrics.HitRate(None, None, None, 0)


def test_information_coefficient_is_pearsons() -> None:
    from scipy.stats import pearsonr

    assert metrics.information_coefficient(Y, PREDICTION) == pytest.approx(pearsonr(Y, PREDICTION).statistic)
    assert metrics.information_coefficient(Y, np.ones_like(Y)) is None


def test_baselines_are_zero_training_mean_and_last_return() -> None:
    values = np.array([[0.01, -0.02], [0.03, 0.04]])
    got = metrics.baselines([0.1, 0.3], block(("return_1", "return_30"), values))
    assert tuple(got) == metrics.BASELINES
    assert got["zero"].tolist() == [0, 0]
    assert got["training_mean"].tolist() == [0.2, 0.2]
    np.testing.assert_allclose(got["last_return"], [-0.02, 0.04], rtol=1e-6)


def test_last_return_counts_bars_of_the_horizon() -> None:
    values = np.array([[0.01, -0.02]])
    got = metrics.baselines([0.0], block(("return_6", "return_30"), values), bar_interval_minutes=5)
    np.testing.assert_allclose(got["last_return"], [0.01], rtol=1e-6)


@pytest.mark.parametrize("extra", [(), ("return_3",)])
def test_last_return_is_compounded_from_lags_where_it_is_absent_or_null(extra: tuple[str, ...]) -> None:
    lags = np.array([[0.01, 0.02, -0.01], [0.0, 0.0, 0.05]])
    values = np.hstack([lags, np.full((2, len(extra)), np.nan)])
    columns = ("return_1_lag_0", "return_1_lag_1", "return_1_lag_2", *extra)
    got = metrics.baselines([0.0], block(columns, values), horizon_minutes=3)
    np.testing.assert_allclose(got["last_return"], [1.01 * 1.02 * 0.99 - 1, 0.05], rtol=1e-5)


def test_last_return_is_never_made_up() -> None:
    with pytest.raises(
        DataError, match="the block lacks return_30 without nulls and the lags return_1_lag_0"
    ):
        metrics.baselines([0.0], block(("rsi_14",), np.ones((2, 1))))


@pytest.mark.parametrize(
    ("y", "prediction", "match"),
    [
        ([0.1], [0.1, 0.2], "required: one shape"),
        ([], [], "required: one shape"),
        ([[0.1]], [[0.1]], "required: one shape"),
        ([0.1, float("nan")], [0.1, 0.2], "not finite"),
        ([0.1, 0.2], [float("inf"), 0.2], "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(y: list[float], prediction: list[float], match: str) -> None:
    with pytest.raises(DataError, match=match):
        metrics.rmse(y, prediction)
