"""A/B outcomes: figures by hand and by statsmodels, intervals that cover, and no verdict without the test."""

from __future__ import annotations

import json
import math
from datetime import datetime

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.power import NormalIndPower

from marketray.errors import DataError
from marketray.evaluation.hac import hac_margin, hac_standard_error
from marketray.serving.rollouts.arms import NEW_ARM_WEIGHT, Answers, Arm, compare_arms, decisions_needed
from marketray.serving.rollouts.sequential import compare_losses
from marketray.serving.traffic import Traffic, bucket
from tests.serving.paths import FloatArray, markets

N = 2_500
AT = np.arange(N, dtype=np.int64) * 60_000_000


def answers(y: FloatArray, predicted: FloatArray, rows: slice | FloatArray = slice(None)) -> Answers:
    return Answers.of_returns(AT[rows], y[rows], predicted[rows])


@pytest.fixture(scope="module")
def market() -> tuple[FloatArray, FloatArray]:
    """Labels of 5 minutes and what can be known of them, 10 % of the variance."""
    y, f = markets(51, 1, N, 5, r2=0.1)
    return y[0], f[0]


def test_the_usual_split_is_70_to_30() -> None:
    traffic = Traffic({"blue": 10_000 - NEW_ARM_WEIGHT, "green": NEW_ARM_WEIGHT}, {"blue": 1, "green": 2})
    assert traffic.weights == {"blue": 7_000, "green": 3_000}
    share = np.mean([traffic.choose(f"client-{i}") == "green" for i in range(5_000)])
    assert (
        share
        == np.mean([bucket(f"client-{i}") < 3_000 for i in range(5_000)])
        == pytest.approx(0.3, abs=0.03)
    )


def test_an_arm_counts_a_decision_once() -> None:
    asked = Answers.of_returns([180_000_000, 60_000_000, 180_000_000], [0.2, -0.1, 0.2], [0.1, 0.1, 0.9])
    assert asked.decision_us.tolist() == [60_000_000, 180_000_000]
    assert asked.loss.tolist() == pytest.approx([0.04, 0.01])


def test_probabilities_are_scored_as_brier_does() -> None:
    asked = Answers.of_probabilities(AT[:4], [0.1, -0.1, 0.0, 0.3], [0.9, 0.3, 0.5, 0.2])
    assert asked.loss.tolist() == pytest.approx([0.01, 0.09, 0.25, 0.64])
    assert asked.signed.tolist() == pytest.approx([0.4, -0.2, 0.0, -0.3])


def test_figures_of_a_comparison(market: tuple[FloatArray, FloatArray]) -> None:
    y, f = market
    old, new = answers(y, 0.1 * f), answers(y, f)
    got = compare_arms(old, new, 5, effect=0.02, alpha=0.1)
    assert (got.old.decisions, got.new.decisions, got.pairs, got.method) == (N, N, N, "paired")
    assert got.new.mean_loss == pytest.approx(np.mean((y - f) ** 2))
    assert got.new.margin == hac_margin((y - f) ** 2, AT, 5)
    assert got.new.hits.rate == pytest.approx(np.mean(np.sign(y) == np.sign(f)))
    difference = (y - f) ** 2 - (y - 0.1 * f) ** 2
    error = hac_standard_error(difference, AT, 5)
    assert got.difference == pytest.approx(difference.mean())
    assert got.margin == pytest.approx(hac_margin(difference, AT, 5))
    gain = 0.02 * np.mean((y - 0.1 * f) ** 2)
    assert got.power == pytest.approx(norm.cdf(gain / error - norm.ppf(0.9)))
    assert got.needed == math.ceil(N * ((norm.ppf(0.9) + norm.ppf(0.8)) * error / gain) ** 2)
    assert got.evidence == compare_losses(new.loss, old.loss, AT, 5, alpha=0.1)


def test_the_verdict_is_the_sequential_tests(market: tuple[FloatArray, FloatArray]) -> None:
    y, f = market
    good, none, bad = answers(y, f), answers(y, 0 * f), answers(y, -f)
    assert compare_arms(none, good, 5).verdict == "better"
    assert compare_arms(good, bad, 5).verdict == "worse"
    few = slice(0, 150)
    early = compare_arms(answers(y, 0 * f, few), answers(y, f, few), 5)
    assert (early.verdict, early.method) == ("undecided", "paired")


def test_a_clear_interval_is_no_verdict() -> None:
    """60 decisions, each won: no room for doubt in the interval, and too few for the sequential test."""
    at, y = AT[:60], np.resize([0.5, 1.0], 60)
    got = compare_arms(Answers.of_returns(at, y, 0 * y), Answers.of_returns(at, y, 0.1 * y), 1)
    assert got.difference is not None
    assert got.margin is not None
    assert got.difference + got.margin < 0
    assert got.verdict == "undecided"


def test_arms_that_never_met_are_compared_by_their_means(market: tuple[FloatArray, FloatArray]) -> None:
    y, f = market
    green = np.random.default_rng(1).random(N) < 0.3
    old, new = answers(y, 0 * f, ~green), answers(y, f, green)
    got = compare_arms(old, new, 5)
    assert (got.pairs, got.method, got.verdict) == (0, "separate", "undecided")
    assert got.difference == pytest.approx(new.loss.mean() - old.loss.mean())
    assert got.old.margin is not None
    assert got.new.margin is not None
    assert got.margin == pytest.approx(np.sqrt(got.old.margin**2 + got.new.margin**2))
    paired = compare_arms(answers(y, 0 * f), answers(y, f), 5)
    assert paired.margin is not None
    assert got.margin > 3 * paired.margin


def test_pairs_are_what_both_arms_answered(market: tuple[FloatArray, FloatArray]) -> None:
    y, f = market
    got = compare_arms(answers(y, 0 * f, slice(0, 1_500)), answers(y, f, slice(700, N)), 5)
    assert got.pairs == 800
    both = slice(700, 1_500)
    assert got.difference == pytest.approx(np.mean((y - f)[both] ** 2 - y[both] ** 2))


def test_intervals_cover_the_true_difference() -> None:
    """95 % intervals of 200 markets in which the true difference is −10 % of the label's variance."""
    y, f = markets(52, 200, 1_000, 5, r2=0.1)
    covered = 0
    for label, known in zip(y, f, strict=True):
        got = compare_arms(answers_of(label, 0 * known), answers_of(label, known), 5)
        assert got.difference is not None
        assert got.margin is not None
        covered += abs(got.difference + known.var()) <= got.margin
    assert 0.9 <= covered / 200 <= 0.99


def answers_of(y: FloatArray, predicted: FloatArray) -> Answers:
    return Answers.of_returns(AT[: len(y)], y, predicted)


def test_too_few_answers_have_no_interval() -> None:
    empty = Answers.of_returns([], [], [])
    none = compare_arms(empty, empty, 30)
    assert (none.method, none.difference, none.power, none.needed) == ("none", None, None, None)
    assert isinstance(none.old, Arm)
    assert (none.old.decisions, none.old.mean_loss, none.old.hits.rate) == (0, None, None)
    y = np.random.default_rng(2).normal(size=40)
    few = compare_arms(answers_of(y, 0 * y), answers_of(y, 0.1 + 0 * y), 30)
    assert (few.method, few.pairs, few.old.margin) == ("none", 40, None)
    assert few.new.mean_loss == pytest.approx(np.mean((y - 0.1) ** 2))


@pytest.mark.parametrize(("effect", "alpha", "power"), [(0.1, 0.05, 0.8), (0.03, 0.01, 0.9), (0.4, 0.1, 0.5)])
def test_decisions_needed_agree_with_statsmodels(effect: float, alpha: float, power: float) -> None:
    n = decisions_needed(3 * effect, 3.0, alpha=alpha, power=power)
    reached, before = (
        NormalIndPower().power(effect, k, alpha, ratio=0, alternative="larger") for k in (n, n - 1)
    )
    assert before < power <= reached


def test_power_at_the_needed_number_is_what_was_asked_for() -> None:
    """1,000 samples of the size for a quarter of a deviation: 80 % are found."""
    n = decisions_needed(0.25, 1.0)
    sample = np.random.default_rng(3).normal(0.25, 1, (1_000, n))
    found = np.mean(sample.mean(axis=1) * np.sqrt(n) > norm.ppf(0.95))
    assert found == pytest.approx(0.8, abs=0.05)


def test_json_has_plain_values(market: tuple[FloatArray, FloatArray]) -> None:
    y, f = market
    made = json.loads(
        json.dumps(compare_arms(answers(y, 0 * f), answers(y, f), 5).to_json(), allow_nan=False)
    )
    assert (made["verdict"], made["method"], made["new"]["decisions"]) == ("better", "paired", N)
    assert datetime.fromisoformat(made["evidence"]["better"]["decided_at"]).year == 1970


def test_wrong_arguments_are_refused() -> None:
    empty = Answers.of_returns([], [], [])
    with pytest.raises(DataError, match="effect=0; required: a positive share"):
        compare_arms(empty, empty, 30, effect=0)
    with pytest.raises(DataError, match="effect=0, alpha=0.05, power=0.8; required: above 0"):
        decisions_needed(0, 1.0)
    with pytest.raises(DataError, match="effect=1, alpha=0.05, power=1; required: .* two inside"):
        decisions_needed(1, 1.0, power=1)
    with pytest.raises(DataError, match="1 of 2 values are not finite"):
        Answers.of_returns(AT[:2], [0.1, math.nan], [0.0, 0.0])
