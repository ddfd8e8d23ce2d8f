"""Sharpe ratios against the worked examples of the papers, and a search over blocks by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from marketray.errors import DataError
from marketray.evaluation.sharpe import (
    deflated_sharpe,
    expected_maximum_sharpe,
    probabilistic_sharpe,
    probability_of_overfitting,
    sharpe_figures,
    sharpe_ratio,
    sharpe_standard_error,
)

RNG = np.random.default_rng(17)


def test_probabilistic_sharpe_of_the_papers_hedge_fund() -> None:
    """Bailey and López de Prado (2012): 24 months, 0.458 a month, skewness −2.448, kurtosis 10.164."""
    assert probabilistic_sharpe(0.458, 24) == pytest.approx(0.982, abs=5e-4)
    assert probabilistic_sharpe(0.458, 24, skewness=-2.448, kurtosis=10.164) == pytest.approx(0.913, abs=5e-4)


def test_deflated_sharpe_of_the_papers_example() -> None:
    """Bailey and López de Prado (2014): 2.5 a year over 1,250 days, 100 trials of variance 1/2 a year."""
    daily, variance = 2.5 / np.sqrt(250), 0.5 / 250
    assert expected_maximum_sharpe(variance, 100) == pytest.approx(0.1132, abs=5e-5)
    found = deflated_sharpe(daily, 1_250, variance, 100, skewness=-3, kurtosis=10)
    assert found == pytest.approx(0.9004, abs=5e-5)
    fewer = deflated_sharpe(daily, 1_250, variance, 46, skewness=-3, kurtosis=10)
    assert fewer == pytest.approx(0.9505, abs=5e-4)


@pytest.mark.parametrize("trials", [5, 50, 500])
def test_expected_maximum_is_that_of_simulated_ratios(trials: int) -> None:
    draws = RNG.standard_normal((4_000, trials)).max(axis=1)
    assert expected_maximum_sharpe(4.0, trials) == pytest.approx(2 * draws.mean(), rel=0.03)


def test_one_trial_deflates_nothing_and_none_is_refused() -> None:
    assert expected_maximum_sharpe(0.3, 1) == 0
    assert deflated_sharpe(0.1, 100, 0.3, 1) == probabilistic_sharpe(0.1, 100)
    with pytest.raises(DataError, match="trials=0; required: at least 1"):
        expected_maximum_sharpe(0.3, 0)


def test_standard_error_is_the_spread_of_ratios_of_skewed_returns() -> None:
    samples = 0.3 + stats.gamma(4).rvs((20_000, 250), random_state=5) / 2 - 2
    true = stats.gamma(4)
    ratio, skewness = 0.3 / (true.std() / 2), float(true.stats("s"))
    error = sharpe_standard_error(ratio, 250, skewness, 3 + float(true.stats("k")))
    assert np.std(sharpe_ratio(samples.T)) == pytest.approx(error, rel=0.02)


def test_sharpe_ratio_is_mean_over_deviation_and_zero_without_risk() -> None:
    returns = RNG.normal(0.1, 1, (60, 3))
    np.testing.assert_allclose(sharpe_ratio(returns), returns.mean(axis=0) / returns.std(axis=0, ddof=1))
    assert sharpe_ratio(np.zeros(10)) == 0
    with pytest.raises(DataError, match=r"returns have shape \(1,\); required: at least two periods"):
        sharpe_ratio([0.1])
    with pytest.raises(DataError, match="all finite"):
        sharpe_ratio([0.1, float("nan")])


def test_figures_are_the_parts_put_together_per_year() -> None:
    returns, tried = RNG.standard_t(5, 300) * 0.01 + 0.001, RNG.normal(0, 0.01, (200, 12))
    got = sharpe_figures(returns, tried, 40, periods_per_year=250)
    ratio = returns.mean() / returns.std(ddof=1)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    error = np.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / 299)
    assert got["annual"] == pytest.approx(ratio * np.sqrt(250))
    assert got["low"] == pytest.approx((ratio - 1.959964 * error) * np.sqrt(250), rel=1e-6)
    assert got["high"] == pytest.approx((ratio + 1.959964 * error) * np.sqrt(250), rel=1e-6)
    assert got["probabilistic"] == pytest.approx(stats.norm.cdf(ratio / error))
    variance = np.var(tried.mean(axis=0) / tried.std(axis=0, ddof=1), ddof=1)
    highest = expected_maximum_sharpe(variance, 40)
    assert got["expected_maximum"] == pytest.approx(highest * np.sqrt(250))
    assert got["deflated"] == pytest.approx(stats.norm.cdf((ratio - highest) / error))
    assert sharpe_figures(np.zeros(30), tried, 40)["annual"] == 0
    assert sharpe_figures(returns, tried[:, :1], 40)["expected_maximum"] == 0  # one ratio has no variance


def brute_force(returns: np.ndarray, splits: int) -> tuple[float, float]:
    blocks = np.array_split(returns, splits)
    logits = []
    for inside in combinations(range(splits), splits // 2):
        sample = np.concatenate([blocks[i] for i in inside])
        rest = np.concatenate([blocks[i] for i in range(splits) if i not in inside])
        best = np.argmax(sample.mean(axis=0) / sample.std(axis=0, ddof=1))
        rank = stats.rankdata(rest.mean(axis=0) / rest.std(axis=0, ddof=1))[best] / (returns.shape[1] + 1)
        logits.append(np.log(rank / (1 - rank)))
    return float(np.mean(np.array(logits) <= 0)), float(np.median(logits))


@pytest.mark.parametrize(("splits", "periods"), [(4, 40), (6, 66), (8, 160)])
def test_probability_of_overfitting_is_that_of_all_halves_one_by_one(splits: int, periods: int) -> None:
    returns = RNG.normal(0.02, 1, (periods, 7))
    got = probability_of_overfitting(returns, splits)
    probability, median = brute_force(returns, splits)
    assert (got["probability"], got["splits"]) == (probability, splits)
    assert got["logits_median"] == pytest.approx(median)


def test_skill_is_not_overfitting_and_luck_is_a_coin() -> None:
    noise = RNG.normal(0, 1, (320, 20))
    skilled = noise.copy()
    skilled[:, 4] += 0.5
    assert probability_of_overfitting(skilled)["probability"] < 0.01
    lucky = np.mean(
        [probability_of_overfitting(RNG.normal(0, 1, (160, 20)), 8)["probability"] for _ in range(60)]
    )
    assert lucky == pytest.approx(0.5, abs=0.1)


def test_candidates_that_are_always_flat_or_equal_do_not_break_it() -> None:
    returns = np.column_stack([np.zeros(64), np.zeros(64), RNG.normal(-0.5, 1, 64)])
    assert probability_of_overfitting(returns)["probability"] == 0  # the flat ones win, tied, everywhere


@pytest.mark.parametrize(
    ("shape", "splits", "match"),
    [
        ((100, 3), 5, "splits=5; required: an even number"),
        ((100, 3), 0, "splits=0; required: an even number"),
        ((31, 3), 16, r"returns have shape \(31, 3\); required: 32 periods, 2 candidates or more"),
        ((100, 1), 16, r"returns have shape \(100, 1\); required: 32 periods"),
        ((100,), 16, r"returns have shape \(100,\); required: 32 periods"),
    ],
)
def test_what_cannot_be_split_is_refused(shape: tuple[int, ...], splits: int, match: str) -> None:
    with pytest.raises(DataError, match=match):
        probability_of_overfitting(np.zeros(shape), splits)
