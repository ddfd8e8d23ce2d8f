from __future__ import annotations

import json

import numpy as np
import pytest
import statsmodels.api as sm

from marketray.errors import DataError
from marketray.evaluation.calibration import Calibration, fit_calibration, normal_guess, reliability
from marketray.evaluation.uncertainty import fit_uncertainty
from tests.evaluation.drifting import EVERY, HORIZON, MINUTE_US, drifting_block, folds_of

RNG = np.random.default_rng(11)
N = 6_000
TIMES = np.arange(N, dtype=np.int64) * MINUTE_US


def labelled(probability: np.ndarray) -> np.ndarray:
    """Labels that go up with these probabilities."""
    return np.where(RNG.uniform(size=len(probability)) < probability, 1e-3, -1e-3)


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def test_the_coefficients_equal_a_logistic_regression_with_newey_west_errors() -> None:
    guess = np.clip(RNG.beta(8, 8, N), 0.2, 0.8)
    y = labelled(1 / (1 + np.exp(-(0.15 + 0.6 * logit(guess)))))
    made = fit_calibration(guess, y, TIMES, 1)
    x = np.clip(logit(guess), made.lowest, made.highest)
    design = sm.add_constant(x - x.mean())
    robust = {"cov_type": "HAC", "cov_kwds": {"maxlags": 4, "use_correction": False}}
    fit = sm.Logit(y > 0, design).fit(disp=0, **robust)
    slope = fit.params[1] * (1 - (2 * fit.bse[1] / fit.params[1]) ** 2)
    assert made.slope == pytest.approx(slope, rel=2e-3)
    level = sm.Logit(y > 0, np.ones((N, 1))).fit(disp=0, **robust)
    intercept = level.params[0] * (1 - (2 * level.bse[0] / level.params[0]) ** 2)
    assert made.intercept == pytest.approx(intercept, rel=1e-6)
    expected = 1 / (1 + np.exp(-(intercept + slope * (x - x.mean()))))
    np.testing.assert_allclose(made(guess), expected, atol=1e-3)
    assert (made.lowest, made.highest) == pytest.approx(tuple(np.quantile(logit(guess), (0.005, 0.995))))


def test_overconfident_guesses_are_pulled_back_to_what_happens() -> None:
    true = 1 / (1 + np.exp(-RNG.normal(0, 0.4, 40_000)))
    guess = 1 / (1 + np.exp(-3 * logit(true)))
    times = np.arange(len(true), dtype=np.int64) * MINUTE_US
    made = fit_calibration(guess[:20_000], labelled(true[:20_000]), times[:20_000], 1)
    found = reliability(made(guess[20_000:]), labelled(true[20_000:]), 0.5)
    before = reliability(guess[20_000:], labelled(true[20_000:]), 0.5)
    assert found["ece"] < 0.02 < 0.1 < before["ece"]
    assert found["brier"] < found["brier_base"]
    np.testing.assert_allclose(made(guess), np.clip(true, 0.25, 0.75), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_without_skill_it_says_about_one_half(seed: int) -> None:
    """Persistent noise as forecasts, overlapping labels with volatility clusters."""
    block = drifting_block(400, "none", seed)
    rng = np.random.default_rng(900 + seed)
    noise = rng.standard_normal(len(block))
    for i in range(1, len(noise)):
        noise[i] = 0.9 * noise[i - 1] + np.sqrt(1 - 0.81) * noise[i]
    folds = folds_of(len(block))
    forecast = 2e-4 * noise
    past = np.concatenate([forecast[score] for _, score in folds])
    made = fit_uncertainty(block, folds, past, task="regression", horizon_minutes=HORIZON)
    scale = made.scale.of(block)
    probability = made.calibration(normal_guess(forecast, scale))
    assert 0.47 < probability.min() <= probability.max() < 0.53
    for i in (0, 500, 9_000):
        answer = made.at(float(forecast[i]), block.values[i], 60.0 + EVERY * (i % 60))
        assert 0.47 < answer.confidence < 0.53


def test_skill_is_found_and_its_probabilities_hold_later() -> None:
    block = drifting_block(400, "none", 3)
    half = len(block) // 2
    forecast = 0.2 * block.y + RNG.normal(size=len(block)) * 0.4 * np.abs(block.y).mean()
    scale = np.full(len(block), np.abs(block.y).mean())
    guess = normal_guess(forecast, scale)
    made = fit_calibration(guess[:half], block.y[:half], block.decision_us[:half], HORIZON)
    found = reliability(made(guess[half:]), block.y[half:], made.base_rate)
    assert found["ece"] < 0.03
    assert found["brier"] < 0.95 * found["brier_base"]
    assert made(0.9)[()] > 0.6 > 0.4 > made(0.1)[()]


def test_a_forecast_that_points_the_wrong_way_counts_for_nothing() -> None:
    guess = np.clip(RNG.beta(8, 8, N), 0.2, 0.8)
    made = fit_calibration(guess, labelled(1 - guess), TIMES, 1)
    assert made.slope == 0
    np.testing.assert_allclose(made(guess), 0.5, atol=0.02)
    constant = fit_calibration(np.full(N, 0.5), labelled(np.full(N, 0.6)), TIMES, 1)
    assert constant.slope == 0
    assert constant(0.5) == pytest.approx(0.6, abs=0.02)


def test_separable_labels_keep_finite_coefficients() -> None:
    guess = np.linspace(0.1, 0.9, N)
    made = fit_calibration(guess, np.where(guess > 0.5, 1.0, -1.0), TIMES, 1)
    assert made(0.9) > 0.99
    assert np.isfinite(made.slope)


def test_confidence_is_the_probability_of_the_named_direction() -> None:
    made = Calibration(0.0, 1.0, 0.0, -1.0, 1.0, flat_share=0.04, base_rate=0.48)
    assert made.confidence(0.5, "up") == 0.5
    assert made.confidence(0.5, "down") == pytest.approx(0.46)
    assert made.confidence(0.5, "flat") == 0.04
    assert made.confidence(0.99, "down") == 0.0
    assert Calibration.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_confidence_equals_the_share_of_labels_of_each_direction() -> None:
    y = labelled(np.full(N, 0.7))
    y[::20] = 0.0
    made = fit_calibration(np.full(N, 0.5), y, TIMES, 1)
    up = float(made(0.5))
    for direction, share in (("up", (y > 0).mean()), ("down", (y < 0).mean()), ("flat", 0.05)):
        assert made.confidence(up, direction) == pytest.approx(share, abs=0.005)


def test_the_normal_guess() -> None:
    from scipy.stats import norm

    deviation = 1e-3
    size = deviation * np.sqrt(2 / np.pi)
    for mean in (-5e-4, 0.0, 3e-4):
        assert normal_guess(mean, size) == pytest.approx(norm.sf(0, mean, deviation), rel=1e-12)


def test_reliability_equals_the_known_library() -> None:
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    probability = RNG.uniform(0.3, 0.7, 5_000)
    y = labelled(probability * 0.8 + 0.1)
    found = reliability(probability, y, 0.52)
    assert found["brier"] == pytest.approx(brier_score_loss(y > 0, probability), rel=1e-12)
    base = np.full(len(y), 0.52)
    assert found["brier_base"] == pytest.approx(brier_score_loss(y > 0, base), rel=1e-12)
    observed, mean = calibration_curve(y > 0, probability, n_bins=10, strategy="quantile")
    table = found["probability_up"]
    np.testing.assert_allclose([row["observed"] for row in table], observed, rtol=1e-12)
    np.testing.assert_allclose([row["mean_probability"] for row in table], mean, rtol=1e-12)
    assert found["ece"] == pytest.approx(np.abs(observed - mean).mean(), rel=1e-9)
    assert [row["n"] for row in table] == [500] * 10


def test_equal_probabilities_share_one_bin() -> None:
    found = reliability(np.full(100, 0.5), np.where(np.arange(100) < 52, 1.0, -1.0), 0.5)
    assert found["probability_up"] == [
        {"low": 0.5, "high": 0.5, "n": 100, "mean_probability": 0.5, "observed": 0.52}
    ]
    assert found["ece"] == pytest.approx(0.02)


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(DataError, match="got 10 guesses for 10 labels, 10 of them up; required: one guess"):
        fit_calibration(np.full(10, 0.5), np.ones(10), TIMES[:10], 1)
    with pytest.raises(DataError, match="got 9 guesses for 10 labels"):
        fit_calibration(np.full(9, 0.5), labelled(np.full(10, 0.5)), TIMES[:10], 1)
