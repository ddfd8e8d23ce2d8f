"""The sequential test: its formula by brute force, its level under every stopping rule, and its power."""

from __future__ import annotations

import itertools
import json
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from marketray.errors import DataError
from marketray.serving.rollouts.sequential import (
    BETS,
    CLIP,
    HALF_LIFE,
    LEAST_SETTLED,
    Evidence,
    compare_losses,
)
from tests.serving.paths import FloatArray, markets

MINUTE_US = 60_000_000
START = datetime(2024, 1, 2, 15, 0, tzinfo=UTC)
START_US = int(START.timestamp() * 1e6)


def minutes(*counts: int) -> npt.NDArray[np.int64]:
    """Decision times in microseconds, minutes after the start."""
    return START_US + np.array(counts, dtype=np.int64) * MINUTE_US


def evidence_of(advantage: npt.ArrayLike, horizon: int = 1, **options: object) -> Evidence:
    """Evidence of a new model whose loss is smaller by `advantage`, a decision each minute."""
    gain = np.asarray(advantage, dtype=np.float64)
    at = minutes(*range(len(gain)))
    return compare_losses(-gain, np.zeros_like(gain), at, horizon, **options)  # type: ignore[arg-type]


def by_hand(gains: dict[int, float], horizon: int, sign: int = 1) -> tuple[float, float]:
    """Evidence now and the largest so far, one bet at a time, straight from the definition."""
    open_until = [-math.inf] * horizon
    stakes = [[1.0] * len(BETS) for _ in range(horizon)]
    largest = now = sum((1 - bet) / len(BETS) for bet in BETS)
    for t, gain in gains.items():
        ended = [abs(g) for s, g in gains.items() if s + horizon <= t]
        weights = [0.5 ** (k / HALF_LIFE) for k in range(len(ended))][::-1]
        usual = sum(w * v for w, v in zip(weights, ended, strict=True)) / sum(weights) if weights else 0
        z = sign * max(-1.0, min(1.0, gain / (CLIP * usual))) if len(ended) >= LEAST_SETTLED else 0.0
        taker = next(k for k in range(horizon) if open_until[k] <= t)
        open_until[taker] = t + horizon
        for j, bet in enumerate(BETS):
            stakes[taker][j] *= math.exp(bet * z + (math.log(1 - bet) + bet) * z * z)
        now = sum((1 - b) * s for stake in stakes for b, s in zip(BETS, stake, strict=True))
        now /= len(BETS) * horizon
        largest = max(largest, now)
    return now, largest


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_evidence_is_its_definition(horizon: int) -> None:
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.choice([1, 1, 1, 2, 40], 150)).tolist()
    gains = dict(zip(times, rng.standard_t(3, 150).tolist(), strict=True))
    got = compare_losses([-g for g in gains.values()], np.zeros(150), minutes(*times), horizon)
    for side, sign in ((got.better, 1), (got.worse, -1)):
        now, largest = by_hand(gains, horizon, sign)
        assert side.e_value == pytest.approx(now, rel=1e-9)
        assert side.p_value == pytest.approx(min(1, 1 / largest), rel=1e-9)
    assert (got.pairs, got.skipped) == (150, 0)
    assert got.mean_difference == pytest.approx(-np.mean(list(gains.values())))


def test_a_bet_never_pays_more_than_it_may_nor_takes_more_than_its_part() -> None:
    z = np.linspace(-1, 1, 2_001)[:, None]
    bet = np.array(BETS)
    paid = np.exp(bet * z + (np.log(1 - bet) + bet) * z**2)
    assert (paid <= 1 + bet * z + 1e-12).all()
    assert (paid >= 1 - bet - 1e-12).all()


@pytest.mark.parametrize("horizon", [1, 3])
def test_no_stopping_rule_gains_from_fair_coins(horizon: int) -> None:
    """All 2¹⁰ ends of a game: even the rule that knows each path's best moment in advance stays below 1/α."""
    known = np.resize([0.01, -0.01], LEAST_SETTLED + horizon - 1)
    ends = [evidence_of([*known, *coins], horizon) for coins in itertools.product((-1.0, 1.0), repeat=10)]
    assert np.mean([e.better.e_value for e in ends]) <= 1
    p = np.array([e.better.p_value for e in ends])
    for level in np.unique(p[p < 1]):
        assert np.mean(p <= level) <= level


def false_verdicts(new: FloatArray, old: FloatArray, horizon: int) -> int:
    """Markets with a verdict at any time, at α = 0.1 a side; losses (200, decisions)."""
    at = minutes(*range(new.shape[1]))
    found = [compare_losses(a, b, at, horizon, alpha=0.1) for a, b in zip(new, old, strict=True)]
    return sum(e.verdict != "undecided" for e in found)


@pytest.fixture(scope="module")
def fair() -> tuple[FloatArray, FloatArray]:
    """Losses of twice what is known and of zero, equal in expectation; labels of 5 minutes."""
    y, f = markets(11, 200, 1_500, 5, r2=0.05)
    return (y - 2 * f) ** 2, y**2


def test_the_level_holds_whenever_one_stops(fair: tuple[FloatArray, FloatArray]) -> None:
    assert false_verdicts(*fair, 5) <= binom.ppf(0.999, 200, 0.2)


def test_the_level_holds_for_models_that_take_turns() -> None:
    """Two models without skill, each better while it forecasts less; neither is on average."""
    y, _ = markets(11, 200, 1_500, 5, r2=0.05)
    _, one = markets(12, 200, 1_500, 5, r2=0.05)
    _, two = markets(13, 200, 1_500, 5, r2=0.05)
    assert false_verdicts((y - one) ** 2, (y - two) ** 2, 5) <= binom.ppf(0.999, 200, 0.2)


def test_overlapping_labels_would_be_wrong_often(fair: tuple[FloatArray, FloatArray]) -> None:
    """Why decisions are dealt to sequences: the same losses as if their labels did not overlap."""
    assert false_verdicts(*fair, 1) > 0.5 * 200


def test_a_usual_test_looked_at_all_the_time_is_wrong_often(fair: tuple[FloatArray, FloatArray]) -> None:
    """Why the test is sequential: 1.28 standard errors at any time after 20 labels that do not overlap."""
    gain = (fair[1] - fair[0])[:, ::5]
    n = np.arange(1, gain.shape[1] + 1)
    error = np.sqrt(np.cumsum(gain**2, axis=1)) / n
    statistic = np.cumsum(gain, axis=1) / n / error
    assert np.mean((np.abs(statistic[:, 20:]) > 1.28).any(axis=1)) > 0.5


def test_power_grows_with_skill() -> None:
    """Shares of 60 markets with the right verdict in 2,500 labels of 5 minutes, 500 of them independent."""
    shares = []
    for r2 in (0.005, 0.05, 0.15, 0.3):
        y, f = markets(21, 60, 2_500, 5, r2=r2)
        at = minutes(*range(2_500))
        pairs = zip((y - f) ** 2, y**2, strict=True)
        verdicts = [compare_losses(new, old, at, 5).verdict for new, old in pairs]
        assert "worse" not in verdicts
        shares.append(verdicts.count("better") / 60)
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] > 0.95


def test_a_model_of_noise_is_found_worse() -> None:
    y, _ = markets(31, 20, 2_500, 5, r2=0.05)
    _, noise = markets(32, 20, 2_500, 5, r2=0.3)
    at = minutes(*range(2_500))
    pairs = zip((y - noise) ** 2, y**2, strict=True)
    assert {compare_losses(new, old, at, 5).verdict for new, old in pairs} == {"worse"}


def test_steady_advantage_is_steady_evidence() -> None:
    values = [evidence_of(np.resize([1.0, 2.0], n), 2).better.e_value for n in range(LEAST_SETTLED + 2, 120)]
    assert (np.diff(values) > 0).all()
    against = [evidence_of(np.resize([1.0, 2.0], n), 2).worse.e_value for n in range(LEAST_SETTLED + 2, 120)]
    assert (np.diff(against) < 0).all()


def test_no_verdict_is_taken_back_or_made_in_hindsight() -> None:
    y, f = markets(41, 1, 3_000, 5, r2=0.3)
    new, old, at = (y - f)[0] ** 2, y[0] ** 2, minutes(*range(3_000))
    whole = compare_losses(new, old, at, 5)
    assert whole.better.decided_at is not None
    last = int((whole.better.decided_at - START) / timedelta(minutes=1)) - 5
    then = compare_losses(new[: last + 1], old[: last + 1], at[: last + 1], 5)
    assert (then.verdict, then.better.decided_at) == ("better", whole.better.decided_at)
    assert then.better.e_value >= 20
    assert compare_losses(new[:last], old[:last], at[:last], 5).verdict == "undecided"
    falls = np.concatenate([new, old + 10 * old.mean()])
    after = compare_losses(falls, np.concatenate([old, old]), minutes(*range(6_000)), 5)
    assert (after.verdict, after.worse.decided_at is not None) == ("better", True)


def test_the_models_may_change_places() -> None:
    rng = np.random.default_rng(5)
    a, b, at = rng.exponential(size=400), rng.exponential(size=400), minutes(*range(400))
    one, two = compare_losses(a, b, at, 4), compare_losses(b, a, at, 4)
    assert (one.better, one.worse) == (two.worse, two.better)


def test_units_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    a, b, at = rng.exponential(size=400), rng.exponential(size=400), minutes(*range(400))
    shuffled = rng.permutation(400)
    expected = compare_losses(a, b, at, 4).better
    other = compare_losses(1e-8 * a[shuffled], 1e-8 * b[shuffled], at[shuffled], 4).better
    assert other.e_value == pytest.approx(expected.e_value, rel=1e-9)
    assert other.p_value == pytest.approx(expected.p_value, rel=1e-9)


def test_a_single_decision_counts_once_and_up_to_its_limit() -> None:
    gain = np.resize([0.1, -0.1], 200)
    huge = gain.copy()
    huge[150], gain[150] = 1e9, 0.1 * CLIP * 1.0001
    assert evidence_of(huge[:151]).better == evidence_of(gain[:151]).better
    at = minutes(*[*range(200), *range(100)])
    twice = compare_losses(-np.resize(gain, 300), np.zeros(300), at, 1)
    assert (twice.pairs, twice.skipped) == (200, 100)
    assert twice.better == evidence_of(gain).better


def test_decisions_closer_than_the_step_are_left_out() -> None:
    rng = np.random.default_rng(8)
    loss = rng.exponential(size=300)
    dense = compare_losses(loss, np.ones(300), minutes(*range(300)), 10, step_minutes=5)
    chosen = [t for t in range(300) if t % 10 < 2]
    thin = compare_losses(loss[chosen], np.ones(60), minutes(*chosen), 10, step_minutes=5)
    assert (dense.pairs, dense.skipped, thin.skipped) == (60, 240, 0)
    assert dense.better == thin.better


def test_instruments_share_the_stake() -> None:
    rng = np.random.default_rng(9)
    gain = rng.normal(0.5, 1, 300)
    at, twice = minutes(*range(300)), minutes(*[*range(300), *range(300)])
    names = np.repeat(["A", "B"], 300)
    alone = compare_losses(-gain, np.zeros(300), at, 3)
    both = compare_losses(-np.tile(gain, 2), np.zeros(600), twice, 3, instrument=names)
    assert both.better.e_value == pytest.approx(alone.better.e_value)
    nothing = evidence_of(np.zeros(300), 3).better.e_value
    beside = np.concatenate([gain, np.zeros(300)])
    half = compare_losses(-beside, np.zeros(600), twice, 3, instrument=names)
    assert half.better.e_value == pytest.approx((alone.better.e_value + nothing) / 2)


def test_expected_time_to_a_decision() -> None:
    """Half way to the verdict, the estimate is right within a factor of two for most of 40 games."""
    rng = np.random.default_rng(10)
    ratios = []
    for gain in rng.normal(0.35, 1, (40, 2_000)):
        decided = evidence_of(gain).better.decided_at
        assert decided is not None
        half = int((decided - START) / timedelta(minutes=2))
        expected = evidence_of(gain[:half]).better.expected_seconds
        ratios.append(math.inf if expected is None else (expected / 60 + half) / (2 * half))
    assert 0.5 < np.median(ratios) < 2
    assert np.mean([0.5 < r < 2 for r in ratios]) > 0.6


def test_no_time_is_expected_where_evidence_does_not_grow() -> None:
    got = evidence_of(np.resize([1.0, 2.0], 200))
    assert (got.verdict, got.better.expected_seconds, got.worse.expected_seconds) == ("better", 0.0, None)
    assert evidence_of(np.zeros(200)).better.expected_seconds is None
    assert evidence_of([1.0]).better.expected_seconds is None


def test_without_pairs_nothing_is_decided() -> None:
    none = compare_losses([], [], [], 30)
    assert (none.verdict, none.pairs, none.mean_difference) == ("undecided", 0, None)
    assert (none.better.p_value, none.better.decided_at, none.better.expected_seconds) == (1.0, None, None)
    assert none.better.e_value == evidence_of(np.zeros(300), 30).better.e_value <= 1


def test_json_has_plain_values() -> None:
    made = json.loads(json.dumps(evidence_of(np.resize([1.0, 2.0], 200)).to_json()))
    assert made["verdict"] == "better"
    assert datetime.fromisoformat(made["better"]["decided_at"]) > START
    assert made["worse"]["decided_at"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"alpha=0.0, .*; required: alpha inside \(0, 1\)"),
        ({"step_minutes": 0}, "step_minutes=0; required: .* a step above 0"),
        ({"instrument": ["A"]}, r"instrument has shape \(1,\), decision_us \(3,\); required: one \(n,\)"),
    ],
)
def test_wrong_parameters_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evidence_of([1.0, 2.0, 3.0], **options)


def test_losses_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 3 values are not finite"):
        evidence_of([1.0, math.nan, 3.0])
